"""Bootstrap intervals, stratified by label and reproducible from a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
#: Rounding may part numbers that are equal.
_EQUAL = 1e-12


def resamples(labels: NDArray[np.int64], draws: int, seed: int) -> Rows:
    """Rows drawn with replacement, as many of each label as there are: (draws, N)."""
    generator = np.random.default_rng(seed)
    parts = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        parts.append(rows[generator.integers(0, len(rows), (draws, len(rows)))])
    return np.concatenate(parts, axis=1) if parts else np.zeros((draws, 0), np.int64)


def evaluated(statistic: Callable[[Rows], Floats], rows: Rows, chunk: int = 2**24) -> Floats:
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


def bias_corrected(value: float, draws: Floats, level: float = 0.95) -> tuple[float, float]:
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


def counts(rows: Rows, size: int) -> Rows:
    """How often each of `size` rows was drawn: (draws, n) -> (draws, size).

    A statistic of counts needs its images sorted, or its bins filled, only once for all draws.
    """
    apart = rows + size * np.arange(len(rows))[:, None]
    return np.bincount(apart.ravel(), minlength=len(rows) * size).reshape(len(rows), size)
