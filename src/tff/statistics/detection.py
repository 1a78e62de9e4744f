"""Detection measures: average precision, ROC area, accuracies, calibration, decision thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.metrics import roc_curve
from torch import Tensor
from torchmetrics import Metric

from tff.statistics.bootstrap import (
    Estimate,
    Resamples,
    count_draws,
    estimate_fraction,
    estimate_share,
    evaluate_resamples,
    mean,
    units_by_label,
)
from tff.statistics.per_image import PerImage, concatenate
from tff.types import Floats, Ints

#: Keys of `measures`, in order.
MEASURES = (
    "ap", "auc", "real_accuracy", "fake_accuracy", "balanced_accuracy", "tpr_at_1", "tpr_at_5",
    "ece", "brier",
)  # fmt: skip
#: False alarm rates of `tpr_at_1` and `tpr_at_5`.
RATES = {"tpr_at_1": 0.01, "tpr_at_5": 0.05}
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
    groups: Ints | None = None,
) -> dict[str, Estimate]:
    """All detection measures of one detector on one set of images, with intervals.

    Intervals are Wilson's, of the number of images for accuracies, and of the effective number for
    other measures (`estimate_fraction`) and for images in groups; that of `ece` is the bootstrap's.

    Estimates of two detectors are paired if both get the same resamples.

    Args:
        labels: (N,) 1 generated, 0 real.
        scores: (N,) on any scale, higher means generated; NaN makes `ap`, `auc`, `tpr_...` NaN.
        called: (N,) whether the image is called generated.
        probabilities: (N,) of "generated"; NaN makes `ece` and `brier` NaN.
        resamples: (D, n) resampled rows.
        groups: (N,) number of each image's group, if the resamples are of groups; see
            `draw_resamples`.

    Returns:
        `ap`, `auc`, `real_accuracy`, `fake_accuracy`, `balanced_accuracy` (the mean of these two),
        `tpr_at_1` and `tpr_at_5` (true positive rate at a false positive rate of 1 and 5 %, see
        `ThresholdCounts.true_positive_rate_at`; NaN with fewer real images than
        `least_real_images`), `ece` (expected calibration error) and `brier` (Brier score). All are
        fractions in [0, 1], and NaN where a class that they need is missing: `ap` needs generated
        images, `ece` and `brier` any image, the others both or their own class.

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
    units = units_by_label(labels, groups)
    gaps, squares = calibration_terms(labels, probabilities)
    terms = np.concatenate([gaps, squares[:, None]], axis=1)

    def evaluate(rows: Resamples) -> Floats:
        weights = count_draws(rows, len(labels))
        counts = count_above_thresholds(labels, scores, weights)
        with np.errstate(invalid="ignore"):
            sums = weights @ terms / weights.sum(1, keepdims=True)
        rates = [
            counts.true_positive_rate_at(rate)
            if units[0] >= least_real_images(rate)
            else np.full(len(rows), np.nan)
            for rate in RATES.values()
        ]
        areas = [counts.average_precision(), counts.roc_auc()]
        return np.stack([*areas, *rates, np.abs(sums[:, :-1]).sum(1), sums[:, -1]], axis=1)

    values, draws = _evaluate(evaluate, len(labels), resamples)
    ap, auc, *rates, (ece, ece_draws), brier = zip(values.tolist(), draws.T, strict=True)
    rarer = min(units.values())
    found = {
        "ap": estimate_fraction(*ap, rarer),
        "auc": estimate_fraction(*auc, rarer),
        **accuracies(labels, called, resamples, groups),
        "ece": Estimate(ece, ece_draws),
        "brier": estimate_fraction(*brier, _count_all(labels, groups)),
    }
    for name, rate in zip(RATES, rates, strict=True):
        found[name] = estimate_fraction(*rate, units[1])
    return {name: found[name] for name in MEASURES}


def accuracies(
    labels: Ints, called: NDArray[np.bool_], resamples: Resamples, groups: Ints | None = None
) -> dict[str, Estimate]:
    """Shares of images that are called what they are; arguments as those of `measures`.

    Returns:
        `real_accuracy`, `fake_accuracy`, their mean `balanced_accuracy`, and `accuracy`, that of
        all images. NaN without such images.
    """
    fake = labels == 1
    hits = np.stack([~fake, fake, ~fake & ~called, fake & called], axis=1).astype(np.float64)

    def evaluate(rows: Resamples) -> Floats:
        real, generated, right_real, right_fake = (count_draws(rows, len(labels)) @ hits).T
        both = _divide(right_real + right_fake, real + generated)
        return np.stack([_divide(right_real, real), _divide(right_fake, generated), both], axis=1)

    values, draws = _evaluate(evaluate, len(labels), resamples)
    units = units_by_label(labels, groups)
    share = estimate_share if groups is None else estimate_fraction
    real, generated, both = (
        share(value, draw, n)
        for value, draw, n in zip(
            values.tolist(), draws.T, (units[0], units[1], _count_all(labels, groups)), strict=True
        )
    )
    known = not np.isnan([real.value, generated.value]).any()
    return {
        "real_accuracy": real,
        "fake_accuracy": generated,
        # Without images of a kind the difference of both is undefined, and their mean too.
        "balanced_accuracy": mean([real, generated]) if known else real - generated,
        "accuracy": both,
    }


def _evaluate(
    statistic: Callable[[Resamples], Floats], n_images: int, resamples: Resamples
) -> tuple[Floats, Floats]:
    """Values of a statistic on the images, (m,), and on their resamples, (D, m)."""
    values = statistic(np.arange(n_images)[None])[0]
    return values, evaluate_resamples(statistic, resamples, _CHUNK)


def _count_all(labels: Ints, groups: Ints | None) -> int:
    """Number of images, or of their groups."""
    return len(labels) if groups is None else len(np.unique(groups))


def least_real_images(rate: float) -> int:
    """Number of real images below which a true positive rate at `rate` is not given.

    With fewer, not one of them lies above the threshold of that rate in more than 1 of 20 samples,
    so that the images tell nothing of the threshold: 299 for 1 %, 59 for 5 %.
    """
    return math.ceil(math.log(0.05) / math.log1p(-rate))


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


def calibrated_errors(probabilities: Floats, draws: int, seed: int) -> Floats:
    """Expected calibration errors of a perfectly calibrated detector, (draws,).

    It gives the same probabilities, and each image is generated with its probability. With few
    images its error is far from 0: the bins hold few images, and each bin's chance adds up.

    Args:
        probabilities: (N,) of "generated"; NaN makes all errors NaN.
        draws: number of sets of labels.
        seed: of the labels.
    """
    p = np.asarray(probabilities, np.float64)
    if not len(p) or np.isnan(p).any():
        return np.full(draws, np.nan)
    generator, step = np.random.default_rng(seed), max(1, _CHUNK // len(p))
    expected, _ = calibration_terms(np.zeros(len(p), np.int64), p)
    in_bin = (expected != 0).astype(np.float64)  # p = 0 is never generated and adds nothing
    errors = [
        np.abs(
            (generator.random((min(step, draws - start), len(p))) < p) @ in_bin - expected.sum(0)
        ).sum(1)
        / len(p)
        for start in range(0, draws, step)
    ]
    return np.concatenate([np.zeros(0), *errors])


def judge_calibration(ece: Estimate, null: Floats) -> Estimate:
    """An expected calibration error with an interval that allows for its bias.

    The error adds up the chance of all bins, on resamples even more: it is never 0. Chance adds at
    most what a calibrated detector shows, which the lower end subtracts; it is 0 where 95 % of
    calibrated detectors may show as much. Chance never lowers the error on average, so the upper
    end lies 1.96 standard deviations of the draws above it.

    Args:
        ece: the error, or a mean or maximum of errors.
        null: (D,) the same of calibrated detectors, see `calibrated_errors`.
    """

    def ends(level: float) -> tuple[float, float]:
        low = max(0.0, ece.value - float(np.quantile(null, level))) if len(null) else np.nan
        spread = float(np.nanstd(ece.draws)) if np.isfinite(ece.draws).any() else np.nan
        return low, min(1.0, ece.value + float(ndtri((1 + level) / 2)) * spread)

    return replace(ece, ends=ends)


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
        """True positive rate at a threshold of which the false positive rate is `rate`, (...,).

        The threshold lies above all but the first k of the n real images, where k is the largest
        number with (k + 1) / (n + 1) <= rate: on new images of the same kind such a threshold
        raises a false alarm in (k + 1) / (n + 1) of the cases on average (a tolerance limit: Wilks,
        Annals of Mathematical Statistics 1941), one with k / n = rate in more. No interpolation. 0
        where n is too small for any; NaN unless both classes occur.
        """
        real = self.false[..., -1:]
        allowed = self.false <= np.floor(rate * (real + 1) + 1e-9) - 1
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
