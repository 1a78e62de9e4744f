"""Measures of detection: average precision, operating points, calibration, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_curve
from torch import Tensor

from tff.statistics.bootstrap import Estimate, Resamples, count_draws, evaluate_resamples
from tff.statistics.per_image import PerImage, concatenate
from tff.types import Floats


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


class AveragePrecision(PerImage):
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
        logits, labels = concatenate(self.values).reshape(-1, 2).cpu().numpy().T
        if not labels.any() or np.isnan(logits).any():
            return torch.tensor(torch.nan)
        return torch.tensor(average_precision_score(labels, logits), dtype=torch.float32)


#: `half`: 0.5. `validation`: the best one on the validation images of the seen generator. `oracle`:
#: the paper's, the best one on the test images themselves, hence optimistic.
ThresholdRule = Literal["half", "validation", "oracle"]


def best_threshold(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """The threshold with the largest sqrt(TPR (1 - FPR)) along the ROC curve, the first of several.

    An image is called generated when p > threshold (released code of Chandrasegaran et al., ECCV
    2022).

    Args:
        labels: (N,) 1 generated, 0 real.
        probabilities: (N,).
    """
    false_positive, true_positive, thresholds = roc_curve(labels, probabilities)
    best = int(np.argmax(np.sqrt(true_positive * (1 - false_positive))))
    return float(thresholds[best])


BINS = 15


def expected_calibration_error(
    labels: NDArray[np.int64], probabilities: Floats, bins: int = BINS
) -> Floats:
    """Mean distance of the probability of "generated" from the share of generated images.

    Over images in bins of equal width of the probability (Naeini et al., AAAI 2015; Guo et al.,
    ICML 2017): sum over bins of |sum of (p - label)| / N. The last bin holds 1.

    Args:
        labels: (..., N), 1 generated, 0 real.
        probabilities: (..., N) in [0, 1].
        bins: number of bins.

    Returns:
        (...,) in [0, 1]; NaN without images and where a probability is NaN.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    labels, p = np.broadcast_arrays(labels, checked(probabilities))
    sets, images = int(np.prod(p.shape[:-1])), p.shape[-1]
    place = bin_index(p, bins).reshape(sets, images) + bins * np.arange(sets)[:, None]
    gaps = np.bincount(place.ravel(), (p - labels).ravel(), minlength=bins * sets)
    error = np.abs(gaps.reshape(*p.shape[:-1], bins)).sum(-1)
    return np.asarray(error / (images or np.nan))


def brier_score(labels: NDArray[np.int64], probabilities: Floats) -> Floats:
    """Mean squared distance of the probability from the label (Brier, Monthly Weather Review 1950).

    Args:
        labels: (..., N), 1 generated, 0 real.
        probabilities: (..., N) in [0, 1].

    Returns:
        (...,) in [0, 1]; NaN without images and where a probability is NaN.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    squares = (checked(probabilities) - labels) ** 2
    return np.asarray(squares.sum(-1) / (squares.shape[-1] or np.nan))


def bin_index(probabilities: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """Number of the bin, 0 to bins - 1, in which each probability lies; of any shape."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges, probabilities, side="right") - 1
    return np.minimum(place, bins - 1)


def checked(probabilities: Floats) -> Floats:
    """The same as float64.

    Raises:
        ValueError: a probability lies outside [0, 1]; NaN may stand for one that is unknown.
    """
    p = np.asarray(probabilities, np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(
            f"probabilities from {np.nanmin(p):g} to {np.nanmax(p):g}: they must lie in [0, 1]; "
            "map logits with `sigmoid` first"
        )
    return p


def true_positive_rate_at(labels: NDArray[np.int64], scores: Floats, rate: float) -> Floats:
    """Share of generated images caught while at most `rate` of the real ones are called generated.

    The largest over all thresholds that keep to it, one that calls nothing generated among them; no
    interpolation, and images of equal scores are called alike.

    Args:
        labels: (..., N), 1 generated, 0 real.
        scores: (..., N), higher means generated, any scale.
        rate: largest false positive rate, a fraction in [0, 1].

    Returns:
        (...,) in [0, 1]; NaN where a class is missing or a score is NaN.

    Raises:
        ValueError: `rate` is no fraction.
    """
    return curve(labels, scores).true_positive_rate_at(rate)


def area_under_curve(labels: NDArray[np.int64], scores: Floats) -> Floats:
    """Area under the ROC curve, ties counting half.

    Args:
        labels: (..., N), 1 generated, 0 real.
        scores: (..., N), higher means generated, any scale.

    Returns:
        (...,) in [0, 1]; NaN where a class is missing or a score is NaN.
    """
    return curve(labels, scores).area()


@dataclass(frozen=True, eq=False)
class Curve:
    """How many images lie at or above each threshold, from a threshold above all downwards.

    Args:
        true: (..., T) generated images called generated, from 0 upwards; NaN if scores are.
        false: (..., T) real images called generated.
    """

    true: Floats
    false: Floats

    def area(self) -> Floats:
        """Area under the ROC curve, (...,)."""
        middle = (self.true[..., 1:] + self.true[..., :-1]) / 2
        area = (np.diff(self.false, axis=-1) * middle).sum(-1)
        return _share(area, self.true[..., -1] * self.false[..., -1])

    def average_precision(self) -> Floats:
        """Area under the precision-recall staircase, (...,); NaN without generated images."""
        true, called = self.true[..., 1:], (self.true + self.false)[..., 1:]
        # In a resample the highest scores may be missing: nothing is called, and nothing gained.
        precision = true / np.maximum(called, 1)
        gained = np.diff(self.true, axis=-1)
        return _share((precision * gained).sum(-1), self.true[..., -1])

    def true_positive_rate_at(self, rate: float) -> Floats:
        """See the function of this name, (...,)."""
        if not 0 <= rate <= 1:
            raise ValueError(
                f"rate={rate}: a false positive rate is a fraction in [0, 1]; 0.05 is 5 percent"
            )
        allowed = _share(self.false, self.false[..., -1:]) <= rate
        missing = np.where(self.false[..., -1] > 0, 1, np.nan)
        return _share(np.where(allowed, self.true, 0).max(-1), self.true[..., -1]) * missing


def curve(
    labels: NDArray[np.int64], scores: Floats, weights: NDArray[np.int64] | None = None
) -> Curve:
    """The curve of scores, or those of many resamples of them, which are then sorted only once.

    Args:
        labels: (..., N), 1 generated, 0 real.
        scores: (..., N), higher means generated, any scale.
        weights: (..., N) how often each image counts, with any axes before those of the scores.

    Returns:
        Curves with N + 1 thresholds; that of an image tied with the next is the one before.
    """
    weights = np.ones(scores.shape, np.int64) if weights is None else weights
    order = np.argsort(-scores, axis=-1, kind="stable")
    sorted_scores = np.take_along_axis(scores, order, -1)
    generated = np.take_along_axis(np.broadcast_to(labels, scores.shape), order, -1) == 1
    # A threshold admits all of a tie, so nothing is counted before the last place of it.
    last = np.ones(scores.shape, bool)
    last[..., :-1] = sorted_scores[..., 1:] != sorted_scores[..., :-1]
    sorted_weights = np.take_along_axis(weights, np.broadcast_to(order, weights.shape), -1)
    unknown = np.isnan(scores).any(-1, keepdims=True)

    def reached(mine: NDArray[np.bool_]) -> Floats:
        count = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1))
        np.cumsum(sorted_weights * mine, axis=-1, out=count[..., 1:])
        count[..., 1:] *= last
        np.maximum.accumulate(count, axis=-1, out=count)
        return np.where(unknown, np.nan, count)

    return Curve(reached(generated), reached(~generated))


def _share(part: Floats, whole: Floats) -> Floats:
    """A quotient; NaN of nothing."""
    return np.asarray(part / np.where(whole > 0, whole, np.nan))


#: What `measures` gives, in its order.
MEASURES = (
    "ap", "auc", "real_accuracy", "fake_accuracy", "balanced_accuracy", "tpr_at_1", "tpr_at_5",
    "ece", "brier",
)  # fmt: skip
#: How many rows are drawn at once; what is made of them should fit into a processor's cache.
_CHUNK = 2**18


def sigmoid(logits: Floats) -> Floats:
    """Probability of "generated" from logits, without overflow."""
    p: Floats = np.exp(-np.logaddexp(0, -logits))
    return p


def mean_logit(logits: Sequence[Floats]) -> Floats:
    """The logit of the mean probability of several detectors, (N,) each, where it saturates too."""

    def log_of_sum(exponents: Floats) -> Floats:
        total: Floats = np.logaddexp.reduce(exponents)
        return total

    z = np.stack(logits)
    return log_of_sum(-np.logaddexp(0, -z)) - log_of_sum(-np.logaddexp(0, z))


def detection(
    labels: NDArray[np.int64], scores: Floats, called: NDArray[np.bool_], rows: Resamples
) -> Mapping[str, float]:
    """AP and accuracies of one detector on one set of images: columns of a table of `measures`.

    Args:
        labels: (N,) 1 generated, 0 real.
        scores: (N,) of any scale, higher means generated.
        called: (N,) whether the image is called generated.
        rows: resampled rows (draws, N) for the intervals.

    Returns:
        `ap`, `real_accuracy`, `fake_accuracy`, fractions in [0, 1] (NaN without images of that
        kind), each with `..._low` and `..._high`.
    """
    found = measures(labels, scores, called, np.full(len(labels), np.nan), rows)
    names = ("ap", "real_accuracy", "fake_accuracy")
    return {c: number for name in names for c, number in found[name].columns(name).items()}


def measures(
    labels: NDArray[np.int64],
    scores: Floats,
    called: NDArray[np.bool_],
    probabilities: Floats,
    rows: Resamples,
) -> dict[str, Estimate]:
    """All that is told of one detector on one set of images.

    The same rows given for two detectors pair their estimates.

    Args:
        labels: (N,) 1 generated, 0 real.
        scores: (N,) of any scale, higher means generated; NaN leaves `ap`, `auc`, `tpr_...` NaN.
        called: (N,) whether the image is called generated.
        probabilities: (N,) of "generated"; NaN leaves `ece` and `brier` NaN.
        rows: resampled rows (draws, n).

    Returns:
        `ap`, `auc`, `real_accuracy`, `fake_accuracy`, `balanced_accuracy` (the mean of these two),
        `tpr_at_1` and `tpr_at_5` (share of generated images caught with at most 1 or 5 percent
        false alarms), `ece` and `brier`; fractions in [0, 1], NaN where a class that it needs is
        missing. `ap` needs generated images only, `ece` and `brier` any.

    Raises:
        ValueError: the images of labels, scores, calls and probabilities differ in number; a
            probability lies outside [0, 1].
    """
    sizes = [len(column) for column in (labels, scores, called, probabilities)]
    if len(set(sizes)) > 1:
        raise ValueError(
            "labels, scores, called and probabilities of {}, {}, {} and {} images: pass those of "
            "the same images".format(*sizes)
        )
    fake = labels == 1
    kinds = np.stack([~fake, fake, ~fake & ~called, fake & called], axis=1).astype(np.float64)
    distance = checked(probabilities) - fake
    in_bin = bin_index(probabilities)[:, None] == np.arange(BINS)
    sums = np.concatenate(
        [kinds, np.where(in_bin, distance[:, None], 0), distance[:, None] ** 2], axis=1
    )

    def of(at: Resamples) -> Floats:
        weights = count_draws(at, len(labels))
        roc = curve(labels, scores, weights)
        with np.errstate(invalid="ignore"):
            totals = weights @ sums
            real_accuracy, fake_accuracy = (totals[:, 2:4] / totals[:, :2]).T
            images = totals[:, :2].sum(1)
            calibration = np.abs(totals[:, 4:-1]).sum(1) / images, totals[:, -1] / images
        return np.stack(
            [
                roc.average_precision(),
                roc.area(),
                real_accuracy,
                fake_accuracy,
                (real_accuracy + fake_accuracy) / 2,
                roc.true_positive_rate_at(0.01),
                roc.true_positive_rate_at(0.05),
                *calibration,
            ],
            axis=1,
        )

    values = of(np.arange(len(labels))[None])[0]
    draws = evaluate_resamples(of, rows, _CHUNK)
    return {
        name: Estimate(float(value), draw)
        for name, value, draw in zip(MEASURES, values, draws.T, strict=True)
    }
