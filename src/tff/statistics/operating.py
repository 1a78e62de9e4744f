"""The ROC curve: what is caught, at the price of which false alarms; many curves at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
