"""Bootstrap intervals, and arithmetic with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from tff.types import Floats

Resamples = NDArray[np.int64]
#: Rounding may part numbers that are equal.
_EQUAL = 1e-12


def draw_resamples(labels: NDArray[np.int64], draws: int, seed: int) -> Resamples:
    """Rows drawn with replacement, as many of each label as there are: (draws, N)."""
    generator = np.random.default_rng(seed)
    parts = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        parts.append(rows[generator.integers(0, len(rows), (draws, len(rows)))])
    return np.concatenate(parts, axis=1) if parts else np.zeros((draws, 0), np.int64)


def evaluate_resamples(
    statistic: Callable[[Resamples], Floats], rows: Resamples, chunk: int = 2**24
) -> Floats:
    """The values of a statistic in all resamples, (draws, ...).

    Args:
        statistic: resampled rows (D, N) -> (D, ...) values. The same rows given to two statistics
            pair them.
        rows: as `resamples` makes them.
        chunk: how many rows at most are evaluated at once, to bound memory.
    """
    step = max(1, chunk // max(1, rows.shape[1]))
    starts = range(0, max(1, len(rows)), step)
    return np.concatenate([statistic(rows[i : i + step]) for i in starts])


def bias_corrected_interval(
    value: float, draws: Floats, level: float = 0.95
) -> tuple[float, float]:
    """Bias-corrected percentile interval (Efron, "Better bootstrap confidence intervals", 1987).

    Average precision is higher in resamples than in the images themselves, the more so the fewer
    these are, since a resample holds images twice. Plain percentiles take that over, and may even
    leave the value outside; here the part of the draws below the value moves them back.

    Args:
        value: of the statistic on the images themselves.
        draws: (D,) on their resamples; NaN, where it is undefined, is left out.
        level: coverage.

    Returns:
        Lower and upper end, the value within; NaN where the value or all draws are undefined.
    """
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(known):
        return np.nan, np.nan
    equal = np.isclose(known, value, rtol=0, atol=_EQUAL)
    below = ((known < value) & ~equal).mean() + equal.mean() / 2
    bias = ndtri(np.clip(below, 0.5 / len(known), 1 - 0.5 / len(known)))
    ends = ndtr(2 * bias + ndtri(np.array([1 - level, 1 + level]) / 2))
    low, high = np.quantile(known, ends)
    return float(min(low, value)), float(max(high, value))


def count_draws(rows: Resamples, size: int) -> Resamples:
    """How often each of `size` rows was drawn: (draws, n) -> (draws, size).

    A statistic of counts needs its images sorted, or its bins filled, only once for all draws.
    """
    apart = rows + size * np.arange(len(rows))[:, None]
    return np.bincount(apart.ravel(), minlength=len(rows) * size).reshape(len(rows), size)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A statistic of the images and of their resamples.

    What is computed from estimates is computed in each resample, so that its interval knows how
    they vary together. This takes estimates of the same resamples: draw i of all of them comes from
    the same images, or from different sets of images.

    Args:
        value: of the images themselves; NaN where it is undefined.
        draws: (D,) of their resamples; NaN where it is undefined.
        beyond: half of the 95 % interval that the value would have on endless images, from another
            chance than theirs; NaN where that is unknown. Nothing more can be computed from such
            an estimate.
    """

    value: float
    draws: Floats
    beyond: float = 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval, of both kinds of chance together; NaN where it is unknown."""
        low, high = bias_corrected_interval(self.value, self.draws)
        return (
            self.value - math.hypot(self.value - low, self.beyond),
            self.value + math.hypot(high - self.value, self.beyond),
        )

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.interval[0]

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.interval[1]

    def __sub__(self, other: Estimate) -> Estimate:
        """The difference in each resample: what varies in both alike drops out.

        Undefined where one of them is undefined on the images themselves.

        Raises:
            ValueError: the numbers of draws differ, or one varies beyond the images.
        """
        if np.isnan([self.value, other.value]).any():
            return _undefined(max(len(self.draws), len(other.draws)))
        draws = _together([self, other])
        return Estimate(self.value - other.value, draws[0] - draws[1])

    def columns(self, name: str) -> dict[str, float]:
        """Columns of a table: `name`, `name_low` and `name_high`."""
        low, high = self.interval
        return {name: self.value, f"{name}_low": low, f"{name}_high": high}


def shortfall(one: Estimate, others: Sequence[Estimate]) -> Estimate:
    """By how much a number lies below the mean of others that were drawn at random.

    The interval holds the chance of the images and that of the drawing: if `one` had been drawn
    like the m others, whose standard deviation is s, the difference would be t(m - 1) s
    sqrt(1 + 1/m). So it excludes zero in 5 % of the cases in which `one` is nothing special.

    Args:
        one: of a choice that was made, such as AP without the top channels.
        others: of choices that were drawn; of a single one nobody knows how much they vary.

    Raises:
        ValueError: the numbers of draws differ.
    """
    difference = mean(others) - one
    values, number = np.array([other.value for other in others]), len(others)
    if number < 2:
        return replace(difference, beyond=np.nan)
    reach = float(stdtrit(number - 1, 0.975)) * math.sqrt(1 + 1 / number)
    return replace(difference, beyond=reach * float(values.std(ddof=1)))


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over generators, in each resample.

    Those that are undefined on the images themselves are left out of value and draws alike; a draw
    that lacks any of the others is undefined, since it would be a mean over other generators.

    Raises:
        ValueError: the numbers of draws differ.
    """
    draws = _together(estimates)
    values = np.array([estimate.value for estimate in estimates])
    known = ~np.isnan(values)
    if not known.any():
        return _undefined(draws.shape[1])
    return Estimate(float(values[known].mean()), draws[known].mean(0))


def worst(estimates: Sequence[Estimate], smallest: bool = True) -> Estimate:
    """The smallest over generators (or the largest), in each resample: each may have another one.

    The least of several noisy numbers lies below the least of the true ones, and that of a resample
    lower still: interval and value err on the careful side. Undefined ones as in `mean`.

    Args:
        estimates: one a generator.
        smallest: whether less is worse, as of accuracies; of errors the largest is the worst.

    Raises:
        ValueError: the numbers of draws differ.
    """
    draws = _together(estimates)
    values = np.array([estimate.value for estimate in estimates])
    known = ~np.isnan(values)
    if not known.any():
        return _undefined(draws.shape[1])
    extreme = np.min if smallest else np.max
    return Estimate(float(extreme(values[known])), extreme(draws[known], axis=0))


def mean_height(xs: Sequence[float], estimates: Sequence[Estimate]) -> Estimate:
    """Mean height of a curve of estimates: the area under it by the trapezoid rule, over its width.

    Args:
        xs: where the estimates stand, ascending.
        estimates: one for each x.

    Returns:
        The mean height in each resample; NaN where the curve has no width or an undefined point.

    Raises:
        ValueError: as many xs as estimates are needed, ascending; the numbers of draws differ.
    """
    x = np.asarray(xs, np.float64)
    if x.shape != (len(estimates),) or not np.isfinite(x).all() or (np.diff(x) < 0).any():
        raise ValueError(
            f"xs={list(xs)} of {len(estimates)} estimates: pass one finite x for each, ascending"
        )
    draws = _together(estimates)
    if not len(x) or x[0] == x[-1]:
        return _undefined(draws.shape[1])
    values = np.array([estimate.value for estimate in estimates])
    width = x[-1] - x[0]
    return Estimate(float(np.trapezoid(values, x) / width), np.trapezoid(draws, x, axis=0) / width)


def _together(estimates: Sequence[Estimate]) -> Floats:
    """The draws of all, (n, D)."""
    if any(estimate.beyond != 0 for estimate in estimates):
        raise ValueError(
            "estimates that vary beyond the images: combine first, and hold against draws last"
        )
    numbers = {len(estimate.draws) for estimate in estimates}
    if len(numbers) > 1:
        raise ValueError(
            f"estimates of {' and '.join(map(str, sorted(numbers)))} draws: they can be combined "
            "only if they come from the same resamples; give all the same number of draws"
        )
    draws = [estimate.draws for estimate in estimates]
    return np.array(draws, np.float64).reshape(len(draws), *numbers or {0})


def _undefined(draws: int) -> Estimate:
    return Estimate(np.nan, np.full(draws, np.nan))
