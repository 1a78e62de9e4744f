"""How well scores tell generated from real images, each number with its resamples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tff.statistics.bootstrap import Rows, counts, evaluated
from tff.statistics.calibration import BINS, bin_of, checked
from tff.statistics.estimate import Estimate
from tff.statistics.operating import curve

Floats = NDArray[np.float64]
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
    labels: NDArray[np.int64], scores: Floats, called: NDArray[np.bool_], rows: Rows
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
    rows: Rows,
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
    in_bin = bin_of(probabilities)[:, None] == np.arange(BINS)
    sums = np.concatenate(
        [kinds, np.where(in_bin, distance[:, None], 0), distance[:, None] ** 2], axis=1
    )

    def of(at: Rows) -> Floats:
        weights = counts(at, len(labels))
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
    draws = evaluated(of, rows, _CHUNK)
    return {
        name: Estimate(float(value), draw)
        for name, value, draw in zip(MEASURES, values, draws.T, strict=True)
    }
