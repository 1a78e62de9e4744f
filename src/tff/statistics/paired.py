"""Two measurements of the same rows, for many channels at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

Floats = NDArray[np.float64]


def wilcoxon(a: Floats, b: Floats) -> Floats:
    """Do paired differences lie symmetrically about zero? (Wilcoxon's signed-rank test, 1945)

    Two-sided, by the normal approximation without continuity correction. Pairs without a difference
    are left out, ties share their mean rank, and the variance is that of these ranks:
    `scipy.stats.wilcoxon(method="asymptotic")` for each column.

    Args:
        a: (N, C), one column a channel.
        b: (N, C), the same rows measured again.

    Returns:
        (C,) p-values; 1 where no pair differs; NaN without rows and where a value is NaN. With
        under some ten pairs that differ the approximation is coarse.

    Raises:
        ValueError: a and b are not of one shape (N, C).
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(
            f"pairs of shapes {a.shape} and {b.shape}: pass two arrays (N, C) with the same rows "
            "in the same order"
        )
    if not len(a):
        return np.full(a.shape[1], np.nan)
    return by_columns(_signed_rank, a, b)


def _signed_rank(a: Floats, b: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = a - b
        equal = difference == 0
        ranks = rankdata(np.abs(difference), axis=0)
        ranks = np.where(equal, 0, ranks - equal.sum(0))
        # If each sign is a coin's, the variance of their sum is the sum of the squared ranks.
        distance = np.abs((ranks * np.sign(difference)).sum(0))
        z = distance / np.sqrt((ranks**2).sum(0))
    p: Floats = 2 * norm.sf(z)
    return np.where(equal.all(0), 1.0, p)


def by_columns(statistic: Callable[..., Floats], *samples: Floats, chunk: int = 2**20) -> Floats:
    """A statistic of columns, computed for a few columns at a time to bound memory.

    Args:
        statistic: samples of c columns as float64, (N, c), (M, c), ... -> (..., c).
        samples: (N, C), (M, C), ... of any type of number.
        chunk: how many values of all samples at most are looked at at once.

    Returns:
        (..., C).
    """
    columns = samples[0].shape[1]
    step = max(1, chunk // max(1, sum(len(sample) for sample in samples)))
    parts = [
        statistic(*(np.asarray(sample[:, i : i + step], np.float64) for sample in samples))
        for i in range(0, max(1, columns), step)
    ]
    return np.concatenate(parts, axis=-1)
