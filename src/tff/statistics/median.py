"""Mood's median test for many channels at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

Floats = NDArray[np.float64]


def median_test(a: Floats, b: Floats) -> Floats:
    """Do two samples come from distributions with the same median? (Mood, 1950)

    The grand median divides both samples, values equal to it counting as below; a chi-square test
    with Yates' correction on the two-by-two table: `scipy.stats.median_test` for each column.

    Args:
        a: (N, C), one column a channel.
        b: (M, C).

    Returns:
        (C,) p-values; 1 where no value lies above the grand median, since nothing is then told.
    """
    if not len(a) or not len(b):
        return np.full(a.shape[1], np.nan)
    grand = np.median(np.concatenate([a, b]), axis=0)
    above = np.stack([(a > grand).sum(0), (b > grand).sum(0)]).astype(float)
    observed = np.stack([above, np.array([[len(a)], [len(b)]]) - above])  # (2, 2, C)
    expected = observed.sum(0, keepdims=True) * observed.sum(1, keepdims=True) / (len(a) + len(b))
    distance = np.abs(observed - expected)
    distance -= np.minimum(0.5, distance)
    with np.errstate(invalid="ignore", divide="ignore"):
        statistic = (distance**2 / expected).sum((0, 1))
    p: Floats = chi2.sf(statistic, 1)
    return np.where(np.isnan(statistic), 1.0, p)
