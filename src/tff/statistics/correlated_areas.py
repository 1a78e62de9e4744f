"""Areas under ROC curves of two scores of the same rows, compared for many scores at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from tff.statistics.paired import by_columns

Floats = NDArray[np.float64]


class CorrelatedAreas(NamedTuple):
    """Areas of two scores, and the p-value of their being equal; (C,) each."""

    area_a: Floats
    area_b: Floats
    p: Floats


def correlated_areas(labels: NDArray[np.int64], a: Floats, b: Floats) -> CorrelatedAreas:
    """Do two scores of the same rows tell the labels apart equally well?

    The test of DeLong, DeLong and Clarke-Pearson (Biometrics, 1988), two-sided; ties count half.

    Args:
        labels: (N,) 1 or 0; rows with other labels are left out.
        a: (N, C) scores, one column a channel, higher for label 1.
        b: (N, C) the other scores of the same rows.

    Returns:
        Areas, NaN without a row of each label; p, NaN with under two of a label. Where no row moves
        against another, p is 1. NaN where a score is NaN.

    Raises:
        ValueError: labels, a and b have not the same rows, or a and b not the same columns.
    """
    if a.ndim != 2 or a.shape != b.shape or labels.shape != a.shape[:1]:
        raise ValueError(
            f"labels {labels.shape} and scores {a.shape} and {b.shape}: pass (N,), (N, C) and "
            "(N, C) with the same rows in the same order"
        )
    ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if not len(ones) or not len(zeros):
        return CorrelatedAreas(*np.full((3, a.shape[1]), np.nan))

    def compare(a: Floats, b: Floats) -> Floats:
        of_a, of_b = (components(scores[ones], scores[zeros]) for scores in (a, b))
        return np.stack([of_a[0].mean(0), of_b[0].mean(0), _equal(of_a, of_b)])

    return CorrelatedAreas(*by_columns(compare, a, b))


def components(one: Floats, zero: Floats) -> tuple[Floats, Floats]:
    """The structural components of an area: its mean is the area, its variance that of the area.

    Args:
        one: (n, ...) scores of the rows with label 1.
        zero: (m, ...) scores of the rows with label 0.

    Returns:
        (n, ...) and (m, ...): of each row the share of the other kind that lies on the right side
        of it, ties counting half.
    """
    everywhere = rankdata(np.concatenate([one, zero]), axis=0)
    beaten: Floats = (everywhere[: len(one)] - rankdata(one, axis=0)) / len(zero)
    beating: Floats = 1 - (everywhere[len(one) :] - rankdata(zero, axis=0)) / len(one)
    return beaten, beating


def _equal(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> Floats:
    """p-value of equal areas from the components of both, (n, C) and (m, C)."""
    # The variance of differences is that of both less twice their covariance, and exactly 0 where
    # the components are the same.
    of_one, of_zero = (x - y for x, y in zip(a, b, strict=True))
    difference = np.abs(of_one.mean(0))
    if min(len(of_one), len(of_zero)) < 2:
        return np.full_like(difference, np.nan)
    error = np.sqrt(of_one.var(0, ddof=1) / len(of_one) + of_zero.var(0, ddof=1) / len(of_zero))
    with np.errstate(invalid="ignore", divide="ignore"):
        p: Floats = 2 * norm.sf(difference / error)
    return np.where((difference == 0) & (error == 0), 1.0, p)
