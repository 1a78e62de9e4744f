"""Bootstrap intervals over images, and arithmetic with estimates that share their resamples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from tff.types import Floats, Ints

#: Equal numbers may be this far apart by rounding.
_ROUNDING = 1e-12
#: (D, M) row numbers, one resample of the N images per row. Resamples of groups differ in size; the
#: number N, which is that of no row, fills up the shorter ones.
Resamples = NDArray[np.int64]


def draw_resamples(labels: Ints, draws: int, seed: int, groups: Ints | None = None) -> Resamples:
    """Row numbers drawn with replacement, stratified by label: (draws, M), ascending.

    Images of one group, such as crops of one photograph, are alike: a sample of other photographs
    would lack all of them or hold all of them. Groups are therefore drawn as a whole (the cluster
    bootstrap: Davison & Hinkley, "Bootstrap methods and their application", 1997, section 3.8).

    Args:
        labels: (N,) each 0 or 1.
        draws: number of resamples.
        seed: of the draws.
        groups: (N,) number of each image's group; None: each image is a group of its own. Groups
            of one label, of the other and of both are drawn apart, as many of each as there are.

    Returns:
        M = N if all groups have the same size; else shorter resamples end in the number N.
    """
    generator, n_rows = np.random.default_rng(seed), len(labels)
    unit = np.arange(n_rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    stratum = np.zeros(unit.max(initial=-1) + 1, np.int64)
    np.bitwise_or.at(stratum, unit, 1 + np.asarray(labels, np.int64))
    times = np.zeros((draws, len(stratum)), np.int64)
    for kind in np.unique(stratum):
        units = np.flatnonzero(stratum == kind)
        drawn = generator.integers(0, len(units), (draws, len(units)))
        times[:, units] = count_draws(drawn, len(units))
    copies = times[:, unit]
    sizes = copies.sum(1)
    rows = np.full((draws, sizes.max(initial=0)), n_rows)
    filled = np.arange(rows.shape[1]) < sizes[:, None]
    rows[filled] = np.repeat(np.tile(np.arange(n_rows), draws), copies.ravel())
    return rows


def units_by_label(labels: Ints, groups: Ints | None = None) -> dict[int, int]:
    """Number of independent images, or of their groups, with label 0 and with label 1.

    Args:
        labels: (N,) each 0 or 1.
        groups: (N,) number of each image's group; None: each image is one of its own.
    """
    units = np.arange(len(labels)) if groups is None else groups
    return {label: len(np.unique(units[labels == label])) for label in (0, 1)}


def count_draws(resamples: Resamples, size: int) -> Resamples:
    """How often each of `size` rows was drawn: (D, M) -> (D, size).

    A statistic of these counts sorts or bins its images once for all resamples.
    """
    offset = resamples + (size + 1) * np.arange(len(resamples))[:, None]
    counts = np.bincount(offset.ravel(), minlength=len(resamples) * (size + 1))
    return counts.reshape(len(resamples), size + 1)[:, :size]


def evaluate_resamples(
    statistic: Callable[[Resamples], Floats], resamples: Resamples, chunk: int = 2**24
) -> Floats:
    """Values of a statistic on all resamples, (D, ...).

    Args:
        statistic: resamples (d, M) -> values (d, ...). Two statistics are paired if both are
            evaluated on the same resamples.
        resamples: (D, M), see `draw_resamples`.
        chunk: largest number of rows evaluated at once, which bounds memory.
    """
    step = max(1, chunk // max(1, resamples.shape[1]))
    starts = range(0, max(1, len(resamples)), step)
    return np.concatenate([statistic(resamples[i : i + step]) for i in starts])


def bias_corrected_interval(
    value: float, draws: Floats, level: float = 0.95
) -> tuple[float, float]:
    """Bias-corrected percentile interval (Efron, "Better bootstrap confidence intervals", 1987).

    Average precision is higher on resamples than on the images themselves, the more so the fewer
    images there are, because a resample holds images twice. Plain percentiles inherit that bias and
    may even exclude the value; here the share of draws below the value shifts them back.

    Args:
        value: of the statistic on the images themselves.
        draws: (D,) on their resamples; NaN (undefined) is ignored.
        level: coverage.

    Returns:
        Lower and upper end, which enclose the value; NaN if the value or all draws are undefined.
    """
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(known):
        return np.nan, np.nan
    equal = np.isclose(known, value, rtol=0, atol=_ROUNDING)  # rounding may separate equal numbers
    below = ((known < value) & ~equal).mean() + equal.mean() / 2
    bias = ndtri(np.clip(below, 0.5 / len(known), 1 - 0.5 / len(known)))
    levels = ndtr(2 * bias + ndtri(np.array([1 - level, 1 + level]) / 2))
    low, high = np.quantile(known, levels)
    return float(min(low, value)), float(max(high, value))


#: Lower and upper end of an interval of the given coverage.
Ends = Callable[[float], tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A statistic on the images and on their resamples.

    Functions of estimates are computed on each resample, so that their interval accounts for how
    the estimates vary together. That requires estimates of the same resamples: draw i of all of
    them belongs to the same images, or to disjoint sets of images. If the numbers of draws differ,
    these functions raise a ValueError.

    Args:
        value: on the images themselves; NaN if undefined.
        draws: (D,) on their resamples; NaN where undefined.
        extra_half_width: half the width of the 95 % interval from chance other than that of the
            images, such as a random choice of channels.
        ends: interval of the chance of the images, by its coverage; None: that of the draws, see
            `bias_corrected_interval`.
    """

    value: float
    draws: Floats
    extra_half_width: float = 0.0
    ends: Ends | None = None

    def interval_at(self, level: float) -> tuple[float, float]:
        """Lower and upper end of the interval of given coverage, of the chance of the images."""
        if self.ends is None:
            return bias_corrected_interval(self.value, self.draws, level)
        return self.ends(level)

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % interval, of all chance together; NaN if unknown."""
        low, high = self.interval_at(0.95)
        if self.extra_half_width == 0:
            return low, high
        return (
            self.value - math.hypot(self.value - low, self.extra_half_width),
            self.value + math.hypot(high - self.value, self.extra_half_width),
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
        """Difference on each resample, which cancels what varies in both alike.

        Undefined if either is undefined on the images themselves. Exactly 0 if both agree on
        resamples that differ: they are of the same scores.
        """
        if np.isnan([self.value, other.value]).any():
            return _undefined(max(len(self.draws), len(other.draws)))
        found = _combine([self, other], [1, -1])
        same = abs(found.value) < _ROUNDING and bool((np.abs(found.draws) < _ROUNDING).all())
        return (
            replace(found, ends=None)
            if same and len(self.draws) and np.ptp(self.draws) > _ROUNDING
            else found
        )

    def columns(self, name: str) -> dict[str, float]:
        """Columns of a table: `name`, `name_low` and `name_high`."""
        low, high = self.interval
        return {name: self.value, f"{name}_low": low, f"{name}_high": high}


def wilson_interval(value: float, size: float, critical: float) -> tuple[float, float]:
    """Score interval of a share (Wilson, JASA 1927), which has a width at 0 and at 1 too.

    Args:
        value: observed share.
        size: number of independent images; 0 or NaN: nothing is known.
        critical: quantile of the normal distribution, 1.96 for 95 %.
    """
    if np.isnan([value, size]).any() or size <= 0:
        return np.nan, np.nan
    if np.isinf(critical):
        return 0.0, 1.0
    square = critical**2
    middle = (value + square / (2 * size)) / (1 + square / size)
    spread = math.sqrt(value * (1 - value) / size + square / (4 * size**2))
    half = critical * spread / (1 + square / size)
    return max(0.0, min(middle - half, value)), min(1.0, max(middle + half, value))


def estimate_share(value: float, draws: Floats, units: int) -> Estimate:
    """A share of images, each of them independent, with Wilson's interval.

    Args:
        value: the share.
        draws: (D,) on resamples.
        units: number of images.
    """

    def ends(level: float) -> tuple[float, float]:
        return wilson_interval(value, units, ndtri((1 + level) / 2))

    return Estimate(value, draws, ends=ends)


def estimate_fraction(value: float, draws: Floats, units: int) -> Estimate:
    """A measure between 0 and 1, with Wilson's interval of its effective number of images.

    Near 0 or 1 all resamples agree, and intervals of their quantiles or their variance collapse.
    Wilson's does not. It needs a number of images: that of a share p with the variance V of the
    draws, n = p (1 - p) / V (Korn & Graubard, Survey Methodology 1998, who also take the quantile
    of Student's t). Where few images are wrong, both parts of that quotient are hardly known, so
    half an image that is as wrong as can be is added to both: n = (p (1 - p) + h / m) /
    (V m / (m - 1) + h / m^2), where h = 1/2 and m is the number of units. n is m where nothing
    varies, and p (1 - p) / V where much does. benchmarks/intervals.py measures the coverage.

    Args:
        value: of the images themselves.
        draws: (D,) on resamples; NaN (undefined) is ignored.
        units: m, number of independent images, or groups of images, of the rarer kind.
    """
    known = draws[~np.isnan(draws)]
    variance = float(np.var(known)) if len(known) else np.nan

    def ends(level: float) -> tuple[float, float]:
        if units < 2:
            return wilson_interval(value, variance + 1, np.inf)
        size = (value * (1 - value) + 0.5 / units) / (
            variance * units / (units - 1) + 0.5 / units**2
        )
        return wilson_interval(value, size, float(stdtrit(units - 1, (1 + level) / 2)))

    return Estimate(value, draws, ends=ends)


def shortfall(one: Estimate, controls: Sequence[Estimate]) -> Estimate:
    """How far an estimate lies below the mean of random controls.

    The interval covers the chance of the images and that of the random draw. If `one` were another
    draw of the m controls, whose standard deviation is s, the difference would follow
    t(m - 1) s sqrt(1 + 1/m). It therefore excludes zero in 5 % of the cases where `one` is not
    special.

    Args:
        one: of a deliberate choice, such as AP without the top channels.
        controls: of random choices; with a single one their spread, and the interval, is unknown.
    """
    return add_chance_of_draws(mean(controls) - one, controls)


def add_chance_of_draws(
    estimate: Estimate, draws: Sequence[Estimate], one_more: bool = True, among: int = 1
) -> Estimate:
    """An estimate made with the mean of m random draws, with their chance in its interval.

    Args:
        estimate: whose own interval covers the images.
        draws: of standard deviation s; with a single one the interval is unknown.
        one_more: the interval shows where one more draw in place of the mean would lie,
            t(m - 1) s sqrt(1 + 1/m) to both sides; otherwise the mean of all possible draws,
            t(m - 1) s sqrt(1/m).
        among: number of further draws that all lie in the interval in 95 % of the cases or more
            (Bonferroni).
    """
    values, m = np.array([draw.value for draw in draws]), len(draws)
    if m < 2:
        return replace(estimate, extra_half_width=np.nan)
    reach = float(stdtrit(m - 1, 1 - 0.025 / among)) * math.sqrt(1 / m + one_more)
    return replace(estimate, extra_half_width=reach * float(values.std(ddof=1)))


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over generators, on each resample.

    Estimates that are undefined on the images themselves are ignored. A draw in which any other one
    is undefined is undefined too: it would be a mean over other generators.
    """
    draws = _stack_draws(estimates)
    known = [estimate for estimate in estimates if not np.isnan(estimate.value)]
    if not known:
        return _undefined(draws.shape[1])
    return _combine(known, [1 / len(known)] * len(known))


def worst(estimates: Sequence[Estimate], smallest: bool = True) -> Estimate:
    """Smallest (or largest) over generators, on each resample, whichever generator it is there.

    The minimum of noisy numbers lies below that of the true ones. The lower end of its interval is
    the lowest of those of the generators, of which one belongs to the truly worst. The upper end is
    the lowest of their upper ends, each of which must hold, so that their level is corrected for
    the number of generators (Bonferroni); nor is the worst better than the mean.

    Args:
        estimates: one per generator; undefined ones as in `mean`.
        smallest: whether less is worse, as for accuracies; for errors the largest is the worst.
    """
    draws = _stack_draws(estimates)
    defined = [estimate for estimate in estimates if not np.isnan(estimate.value)]
    if not defined:
        return _undefined(draws.shape[1])
    overall = mean(defined)

    def ends(level: float) -> tuple[float, float]:
        plain = np.array([estimate.interval_at(level) for estimate in defined])
        strict = 1 - (1 - level) / len(defined)
        held = np.array([estimate.interval_at(strict) for estimate in defined])
        bound = overall.interval_at(level)
        if smallest:
            return plain[:, 0].min(), max(value, min(held[:, 1].min(), bound[1]))
        return min(value, max(held[:, 0].max(), bound[0])), plain[:, 1].max()

    least = np.min if smallest else np.max
    value = float(least([estimate.value for estimate in defined]))
    return Estimate(value, least(_stack_draws(defined), axis=0), ends=ends)


def mean_height(xs: Sequence[float], estimates: Sequence[Estimate]) -> Estimate:
    """Area under a curve of estimates by the trapezoid rule, divided by the width of the curve.

    Args:
        xs: positions of the estimates, ascending.
        estimates: one per x.

    Returns:
        Mean height on each resample; NaN if the curve has no width or an undefined point.

    Raises:
        ValueError: not one finite x per estimate, in ascending order.
    """
    x = np.asarray(xs, np.float64)
    if x.shape != (len(estimates),) or not np.isfinite(x).all() or (np.diff(x) < 0).any():
        raise ValueError(
            f"xs={list(xs)} of {len(estimates)} estimates: pass one finite x for each, ascending"
        )
    draws = _stack_draws(estimates)
    if not len(x) or x[0] == x[-1] or np.isnan([e.value for e in estimates]).any():
        return _undefined(draws.shape[1])
    steps = np.diff(x) / (2 * (x[-1] - x[0]))
    return _combine(estimates, np.append(steps, 0) + np.append(0, steps))


def _combine(estimates: Sequence[Estimate], weights: Sequence[float] | Floats) -> Estimate:
    """Weighted sum of defined estimates, on the images and on each resample.

    If they have intervals of their own, that of the sum follows from these and from the
    correlations of the draws (MOVER: Zou & Donner, Statistics in Medicine 2008): the square of each
    distance from value to end is the sum over pairs of weight x distance, times correlation.
    Estimates that do not vary over the draws count as independent.
    """
    weight, draws = np.asarray(weights, np.float64), _stack_draws(estimates)
    value = float(weight @ [estimate.value for estimate in estimates])
    total = weight @ draws
    if all(estimate.ends is None for estimate in estimates):
        return Estimate(value, total)
    known = draws[:, ~np.isnan(draws).any(0)]
    centered = known - known.mean(1, keepdims=True) if known.size else known
    norms = np.sqrt((centered**2).sum(1))
    varies = norms > 1e-9 * math.sqrt(max(1, known.shape[1]))
    unit = np.where(varies, 1 / np.where(varies, norms, 1), 0)[:, None] * centered
    correlation = unit @ unit.T
    np.fill_diagonal(correlation, 1)

    def ends(level: float) -> tuple[float, float]:
        intervals = [estimate.interval_at(level) for estimate in estimates]
        down, up = np.array([
            (estimate.value - low, high - estimate.value)
            for estimate, (low, high) in zip(estimates, intervals, strict=True)
        ]).T  # fmt: skip
        below = weight * np.where(weight > 0, down, up)
        above = weight * np.where(weight > 0, up, down)
        low, high = (
            math.sqrt(max(0.0, d @ correlation @ d)) if np.isfinite(d).all() else np.nan
            for d in (below, above)
        )
        return value - low, value + high

    return Estimate(value, total, ends=ends)


def _stack_draws(estimates: Sequence[Estimate]) -> Floats:
    """The draws of all estimates, (n, D)."""
    if any(estimate.extra_half_width != 0 for estimate in estimates):
        raise ValueError(
            "estimates with an extra half width: combine estimates first, and compare the result "
            "with random controls last"
        )
    numbers = {len(estimate.draws) for estimate in estimates}
    if len(numbers) > 1:
        raise ValueError(
            f"estimates of {' and '.join(map(str, sorted(numbers)))} draws: they can be combined "
            "only if they come from the same resamples; use the same number of draws for all"
        )
    draws = [estimate.draws for estimate in estimates]
    return np.array(draws, np.float64).reshape(len(draws), *numbers or {0})


def _undefined(draws: int) -> Estimate:
    return Estimate(np.nan, np.full(draws, np.nan))
