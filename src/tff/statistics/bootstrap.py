"""Bootstrap intervals, stratified by label and reproducible from a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def resamples(labels: NDArray[np.int64], draws: int, seed: int) -> Rows:
    """Rows drawn with replacement, as many of each label as there are: (draws, N)."""
    generator = np.random.default_rng(seed)
    parts = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        parts.append(rows[generator.integers(0, len(rows), (draws, len(rows)))])
    return np.concatenate(parts, axis=1) if parts else np.zeros((draws, 0), np.int64)


def interval(
    statistic: Callable[[Rows], Floats], rows: Rows, level: float = 0.95, chunk: int = 2**24
) -> tuple[float, float]:
    """Percentile interval of a statistic (Efron and Tibshirani, 1993, section 13.3).

    Args:
        statistic: resampled rows (D, N) -> (D,) values. The same rows given to two statistics pair
            them.
        rows: as `resamples` makes them.
        level: coverage.
        chunk: how many rows at most are evaluated at once, to bound memory.

    Returns:
        Lower and upper end; NaN when the statistic is undefined.
    """
    return percentiles(evaluated(statistic, rows, chunk), level)


def evaluated(statistic: Callable[[Rows], Floats], rows: Rows, chunk: int = 2**24) -> Floats:
    """The values of a statistic in all resamples, (draws, ...); see `interval`."""
    step = max(1, chunk // max(1, rows.shape[1]))
    starts = range(0, max(1, len(rows)), step)
    return np.concatenate([statistic(rows[i : i + step]) for i in starts])


def percentiles(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Ends of the middle `level` of values (D,), NaN left out; NaN when there are no others."""
    if np.isnan(values).all():
        return np.nan, np.nan
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def counts(rows: Rows, size: int) -> Rows:
    """How often each of `size` rows was drawn: (draws, n) -> (draws, size).

    A statistic of counts needs its images sorted, or its bins filled, only once for all draws.
    """
    apart = rows + size * np.arange(len(rows))[:, None]
    return np.bincount(apart.ravel(), minlength=len(rows) * size).reshape(len(rows), size)
