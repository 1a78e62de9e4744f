"""Detection measures: average precision, ROC area, accuracies, calibration, decision thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_curve
from torch import Tensor
from torchmetrics import Metric

from tff.statistics.bootstrap import Estimate, Resamples, count_draws, evaluate_resamples
from tff.statistics.per_image import PerImage, concatenate
from tff.types import Floats, Ints

#: Keys of `measures`, in order.
MEASURES = (
    "ap", "auc", "real_accuracy", "fake_accuracy", "balanced_accuracy", "tpr_at_1", "tpr_at_5",
    "ece", "brier",
)  # fmt: skip
#: Bins of equal width of the expected calibration error.
BINS = 15
#: Number of resampled rows evaluated at once; the arrays made from them should fit into the cache.
_CHUNK = 2**18


def measures(
    labels: Ints,
    scores: Floats,
    called: NDArray[np.bool_],
    probabilities: Floats,
    resamples: Resamples,
) -> dict[str, Estimate]:
    """All detection measures of one detector on one set of images, with bootstrap draws.

    Estimates of two detectors are paired if both get the same resamples.

    Args:
        labels: (N,) 1 generated, 0 real.
        scores: (N,) on any scale, higher means generated; NaN makes `ap`, `auc`, `tpr_...` NaN.
        called: (N,) whether the image is called generated.
        probabilities: (N,) of "generated"; NaN makes `ece` and `brier` NaN.
        resamples: (D, n) resampled rows.

    Returns:
        `ap`, `auc`, `real_accuracy`, `fake_accuracy`, `balanced_accuracy` (the mean of these two),
        `tpr_at_1` and `tpr_at_5` (true positive rate at a false positive rate of at most 1 and
        5 %), `ece` (expected calibration error) and `brier` (Brier score). All are fractions in
        [0, 1], and NaN where a class that they need is missing: `ap` needs generated images, `ece`
        and `brier` any image, the others both or their own class.

    Raises:
        ValueError: labels, scores, calls and probabilities differ in length; a probability lies
            outside [0, 1].
    """
    sizes = [len(column) for column in (labels, scores, called, probabilities)]
    if len(set(sizes)) > 1:
        raise ValueError(
            "labels, scores, called and probabilities of {}, {}, {} and {} images: pass those of "
            "the same images".format(*sizes)
        )
    fake = labels == 1
    hits = np.stack([~fake, fake, ~fake & ~called, fake & called], axis=1).astype(np.float64)
    gaps, squares = calibration_terms(labels, probabilities)
    terms = np.concatenate([hits, gaps, squares[:, None]], axis=1)

    def evaluate(rows: Resamples) -> Floats:
        weights = count_draws(rows, len(labels))
        counts = count_above_thresholds(labels, scores, weights)
        with np.errstate(invalid="ignore"):
            sums = weights @ terms
            real_accuracy, fake_accuracy = (sums[:, 2:4] / sums[:, :2]).T
            n_images = sums[:, :2].sum(1)
            ece, brier = np.abs(sums[:, 4:-1]).sum(1) / n_images, sums[:, -1] / n_images
        areas = [counts.average_precision(), counts.roc_auc()]
        accuracies = [real_accuracy, fake_accuracy, (real_accuracy + fake_accuracy) / 2]
        rates = [counts.true_positive_rate_at(rate) for rate in (0.01, 0.05)]
        return np.stack([*areas, *accuracies, *rates, ece, brier], axis=1)

    values = evaluate(np.arange(len(labels))[None])[0]
    draws = evaluate_resamples(evaluate, resamples, _CHUNK)
    return {
        name: Estimate(float(value), draw)
        for name, value, draw in zip(MEASURES, values, draws.T, strict=True)
    }


def calibration_terms(labels: Ints, probabilities: Floats) -> tuple[Floats, Floats]:
    """Terms of each image in the expected calibration error and in the Brier score.

    ECE = sum over bins of |sum of (p - label)| / N, for bins of equal width of p, the last one
    including 1 (Naeini et al., AAAI 2015; Guo et al., ICML 2017). Brier score = mean of
    (p - label)^2 (Brier, Monthly Weather Review 1950).

    Args:
        labels: (N,) 1 generated, 0 real.
        probabilities: (N,) of "generated"; NaN where unknown.

    Returns:
        (N, BINS) p - label in the bin of the image, 0 in the others; (N,) (p - label)^2.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    p = np.asarray(probabilities, np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(
            f"probabilities from {np.nanmin(p):g} to {np.nanmax(p):g}: they must lie in [0, 1]; "
            "map logits with `sigmoid` first"
        )
    distance = p - (labels == 1)
    index = np.searchsorted(np.linspace(0, 1, BINS + 1), p, side="right") - 1
    in_bin = np.minimum(index, BINS - 1)[:, None] == np.arange(BINS)
    return np.where(in_bin, distance[:, None], 0), distance**2


@dataclass(frozen=True, eq=False)
class ThresholdCounts:
    """Number of images at or above each threshold, from a threshold above all scores downwards.

    Args:
        true: (..., T) generated images called generated; NaN if a score is.
        false: (..., T) real images called generated.
    """

    true: Floats
    false: Floats

    def average_precision(self) -> Floats:
        """Area under the precision-recall staircase, (...,); NaN without generated images."""
        true, called = self.true[..., 1:], (self.true + self.false)[..., 1:]
        # A resample may lack the highest scores: no image is called there, and nothing gained.
        precision = true / np.maximum(called, 1)
        gained = np.diff(self.true, axis=-1)
        return _divide((precision * gained).sum(-1), self.true[..., -1])

    def roc_auc(self) -> Floats:
        """Area under the ROC curve, ties counting half, (...,); NaN unless both classes occur."""
        middle = (self.true[..., 1:] + self.true[..., :-1]) / 2
        area = (np.diff(self.false, axis=-1) * middle).sum(-1)
        return _divide(area, self.true[..., -1] * self.false[..., -1])

    def true_positive_rate_at(self, rate: float) -> Floats:
        """Largest true positive rate at a false positive rate of at most `rate`, (...,).

        No interpolation: the best of the actual thresholds, one above all scores among them. NaN
        unless both classes occur.
        """
        allowed = _divide(self.false, self.false[..., -1:]) <= rate
        missing = np.where(self.false[..., -1] > 0, 1, np.nan)
        return _divide(np.where(allowed, self.true, 0).max(-1), self.true[..., -1]) * missing


def count_above_thresholds(
    labels: Ints, scores: Floats, weights: Ints | None = None
) -> ThresholdCounts:
    """Counts behind ROC and precision-recall curves, for scores or many resamples of them.

    Scores are sorted once, however many resamples there are.

    Args:
        labels: (..., N) 1 generated, 0 real.
        scores: (..., N) on any scale, higher means generated.
        weights: (..., N) how often each image counts, with any axes before those of the scores.

    Returns:
        Counts at N + 1 thresholds; a threshold inside a tie repeats the counts above the tie.
    """
    weights = np.ones(scores.shape, np.int64) if weights is None else weights
    order = np.argsort(-scores, axis=-1, kind="stable")
    sorted_scores = np.take_along_axis(scores, order, -1)
    generated = np.take_along_axis(np.broadcast_to(labels, scores.shape), order, -1) == 1
    # A threshold admits all of a tie, so nothing is counted before the last image of the tie.
    last = np.ones(scores.shape, bool)
    last[..., :-1] = sorted_scores[..., 1:] != sorted_scores[..., :-1]
    sorted_weights = np.take_along_axis(weights, np.broadcast_to(order, weights.shape), -1)
    unknown = np.isnan(scores).any(-1, keepdims=True)

    def accumulate(mask: NDArray[np.bool_]) -> Floats:
        count = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1))
        np.cumsum(sorted_weights * mask, axis=-1, out=count[..., 1:])
        count[..., 1:] *= last
        np.maximum.accumulate(count, axis=-1, out=count)
        return np.where(unknown, np.nan, count)

    return ThresholdCounts(accumulate(generated), accumulate(~generated))


def _divide(part: Floats, total: Floats) -> Floats:
    """Quotient; NaN where the total is 0."""
    return np.asarray(part / np.where(total > 0, total, np.nan))


def average_precision(labels: Ints, scores: Floats) -> Floats:
    """Area under the precision-recall staircase, as scikit-learn defines it; ties share a step.

    Args:
        labels: (..., N) 1 generated, 0 real.
        scores: (..., N) on any scale, higher means generated. Logits need no sigmoid: it would
            saturate and make ties.

    Returns:
        (...,) float64; NaN without a generated image and where a score is NaN.
    """
    return count_above_thresholds(labels, scores).average_precision()


class AveragePrecision(PerImage):
    """Average precision of raw logits in float64, over batches and processes.

    torchmetrics' own applies a sigmoid per batch, which saturates: 0.49 instead of 0.59 on wide
    logits.

    Args:
        needs_real: NaN without a real image, where each ranking has the average precision 1.
    """

    def __init__(self, needs_real: bool = False) -> None:
        super().__init__(width=2)
        self.needs_real = needs_real

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add the (B,) logits and labels of a batch."""
        pairs = torch.stack([logits.detach().double(), labels.double()], dim=1)
        super().update(torch.zeros(len(pairs)), pairs)

    def compute(self) -> Tensor:
        """Scalar float32; NaN without a generated image and where a logit is NaN."""
        # In the order of arrival: images with equal logits share one step of the curve.
        logits, labels = concatenate(self.values).reshape(-1, 2).cpu().numpy().T
        unknown = self.needs_real and not (labels == 0).any()
        value = math.nan if unknown else float(average_precision(labels, logits))
        return torch.tensor(value, dtype=torch.float32)


class Accuracy(Metric):
    """Share of images on the right side of P = 0.5, over batches and processes.

    torchmetrics' own takes logits for probabilities where all of a batch lie within [0, 1], and is
    0 where it has seen no image.

    Args:
        label: of the images that count; None: all.
    """

    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self, label: int | None = None) -> None:
        super().__init__()
        self.label = label
        for name in ("right", "total"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add the (B,) logits and labels of a batch."""
        called = torch.sigmoid(logits.detach()) > 0.5
        counts = torch.ones_like(called) if self.label is None else labels == self.label
        self.right += (counts & (called == (labels == 1))).sum()
        self.total += counts.sum()

    def compute(self) -> Tensor:
        """Scalar float32; NaN without images."""
        return self.right.float() / self.total.float()


#: `half`: 0.5. `validation`: the best on validation images of the seen generator. `oracle`: the
#: paper's, the best on the test images themselves, hence optimistic.
ThresholdRule = Literal["half", "validation", "oracle"]


def best_threshold(labels: Ints, probabilities: Floats) -> float:
    """Threshold with the largest sqrt(TPR (1 - FPR)) on the ROC curve, the highest of several.

    An image is called generated if p > threshold (released code of Chandrasegaran et al., ECCV
    2022).

    Args:
        labels: (N,) 1 generated, 0 real.
        probabilities: (N,) of "generated".
    """
    false_positive_rate, true_positive_rate, thresholds = roc_curve(labels, probabilities)
    best = int(np.argmax(np.sqrt(true_positive_rate * (1 - false_positive_rate))))
    return float(thresholds[best])


def sigmoid(logits: Floats) -> Floats:
    """Probability of "generated" from logits, without overflow."""
    p: Floats = np.exp(-np.logaddexp(0, -logits))
    return p


def mean_logit(logits: Sequence[Floats]) -> Floats:
    """Logit of the mean probability of several detectors, (N,) each, exact under saturation too."""
    z = np.stack(logits)
    log_generated, log_real = -np.logaddexp(0, -z), -np.logaddexp(0, z)
    logit: Floats = np.logaddexp.reduce(log_generated) - np.logaddexp.reduce(log_real)
    return logit
