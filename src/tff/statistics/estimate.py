"""A number with the values that it takes in resamples of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tff.statistics.bootstrap import percentiles

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Estimate:
    """A statistic of the images and of their resamples.

    What is computed from estimates is computed in each resample, so that its interval knows how
    they vary together. This takes estimates of the same resamples: draw i of all of them comes from
    the same images, or from different sets of images.

    Args:
        value: of the images themselves; NaN where it is undefined.
        draws: (D,) of their resamples; NaN where it is undefined.
    """

    value: float
    draws: Floats

    @property
    def low(self) -> float:
        """Lower end of the 95 % percentile interval, undefined draws left out; NaN without any."""
        return percentiles(self.draws)[0]

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return percentiles(self.draws)[1]

    def __sub__(self, other: Estimate) -> Estimate:
        """The difference in each resample: what varies in both alike drops out.

        Undefined where one of them is undefined on the images themselves.

        Raises:
            ValueError: the numbers of draws differ.
        """
        if np.isnan([self.value, other.value]).any():
            return _undefined(max(len(self.draws), len(other.draws)))
        draws = _together([self, other])
        return Estimate(self.value - other.value, draws[0] - draws[1])

    def columns(self, name: str) -> dict[str, float]:
        """Columns of a table: `name`, `name_low` and `name_high`."""
        low, high = percentiles(self.draws)
        return {name: self.value, f"{name}_low": low, f"{name}_high": high}


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


def area(xs: Sequence[float], estimates: Sequence[Estimate]) -> Estimate:
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
