"""How far two samples lie apart, for many channels at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from tff.statistics.paired import by_columns

Floats = NDArray[np.float64]


def cliffs_delta(a: Floats, b: Floats) -> Floats:
    """P(a > b) - P(a < b) of a row of each sample (Cliff, Psychological Bulletin 1993).

    1: every value of a lies above all of b; -1: below; 0: neither does so more often. A p-value
    falls with the number of images, this does not.

    Args:
        a: (N, C), one column a channel.
        b: (M, C).

    Returns:
        (C,) in [-1, 1]; NaN without rows of either sample and where a value is NaN.

    Raises:
        ValueError: a and b have not the same columns.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"samples of shapes {a.shape} and {b.shape}: pass (N, C) and (M, C) with the same "
            "channels as columns"
        )
    if not len(a) or not len(b):
        return np.full(a.shape[1], np.nan)
    return by_columns(_delta, a, b)


def _delta(a: Floats, b: Floats) -> Floats:
    n, m = len(a), len(b)
    # Of all n + m ranks those of a say how many values of b lie below (Mann and Whitney, 1947).
    ranks = rankdata(np.concatenate([a, b]), axis=0)[:n].sum(0)
    delta: Floats = (2 * ranks - n * (n + 1) - n * m) / (n * m)
    return delta
