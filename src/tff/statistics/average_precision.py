"""Average precision from raw scores, many data sets at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor

from tff.statistics.rows import Rows, joined

Floats = NDArray[np.float64]


def average_precision(labels: NDArray[np.int64], scores: Floats) -> Floats:
    """Area under the precision-recall staircase, as scikit-learn defines it; ties share a step.

    Args:
        labels: (..., N), 1 generated, 0 real.
        scores: (..., N), higher means generated; any scale, so logits need no sigmoid, which would
            saturate and make ties.

    Returns:
        (...,) float64; NaN where there is no generated image, or a score is NaN.
    """
    if labels.shape[-1] == 0:
        return np.full(labels.shape[:-1], np.nan)
    order = np.argsort(-scores, axis=-1, kind="stable")
    sorted_labels = np.take_along_axis(labels, order, -1)
    sorted_scores = np.take_along_axis(scores, order, -1)
    hits = np.cumsum(sorted_labels, axis=-1)
    precision = hits / np.arange(1, labels.shape[-1] + 1)
    # A threshold admits all of a tie, so each image counts at the last place of its tie.
    last = np.ones(scores.shape, bool)
    last[..., :-1] = sorted_scores[..., 1:] != sorted_scores[..., :-1]
    reached = np.maximum.accumulate(np.where(last, hits, 0), axis=-1)
    gained = np.where(last, np.diff(reached, prepend=0), 0)
    total = hits[..., -1]
    with np.errstate(invalid="ignore"):
        area: Floats = (precision * gained).sum(-1) / np.where(total > 0, total, np.nan)
    return np.where(np.isnan(scores).any(-1), np.nan, area)


class AveragePrecision(Rows):
    """Average precision of the raw logits that pass by, by scikit-learn in float64.

    torchmetrics' own squashes each batch on its own and saturates: 0.49 came out instead of 0.59 on
    wide logits.
    """

    def __init__(self) -> None:
        super().__init__(width=2)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in (B,) logits and labels."""
        pairs = torch.stack([logits.detach().double(), labels.double()], dim=1)
        super().update(torch.zeros(len(pairs)), pairs)

    def compute(self) -> Tensor:
        """Scalar float32; NaN without a generated image, or of a network that gives NaN."""
        # In any order: images of equal logits count as one step of the curve.
        logits, labels = joined(self.values).reshape(-1, 2).cpu().numpy().T
        if not labels.any() or np.isnan(logits).any():
            return torch.tensor(torch.nan)
        return torch.tensor(average_precision_score(labels, logits), dtype=torch.float32)
