"""Tests of many channels at once: medians, paired differences, effect sizes, ROC areas."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2, norm, rankdata
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from tff.types import Floats


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
    return map_columns(_signed_rank, a, b)


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


def map_columns(statistic: Callable[..., Floats], *samples: Floats, chunk: int = 2**20) -> Floats:
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
    return map_columns(_delta, a, b)


def _delta(a: Floats, b: Floats) -> Floats:
    n, m = len(a), len(b)
    # Of all n + m ranks those of a say how many values of b lie below (Mann and Whitney, 1947).
    ranks = rankdata(np.concatenate([a, b]), axis=0)[:n].sum(0)
    delta: Floats = (2 * ranks - n * (n + 1) - n * m) / (n * m)
    return delta


def benjamini_hochberg(p: Floats, axis: int = -1) -> Floats:
    """q-values: of the tests with q <= a, on average at most a share a is called falsely.

    Benjamini and Hochberg (JRSS B, 1995), as adjusted p-values: the q of the i-th smallest of m
    p-values is min over j >= i of p_j m / j. Holds for independent and for positively dependent
    tests (Benjamini and Yekutieli, 2001).

    Args:
        p: (...) p-values; NaN where there was no test, which is not counted.
        axis: along which the tests lie that belong together; all other axes are families apart.

    Returns:
        (...) float64 as p, each at least its p; NaN stays NaN.

    Raises:
        ValueError: a p-value lies outside [0, 1].
    """
    p = np.asarray(p, np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(
            f"p-values from {np.nanmin(p):g} to {np.nanmax(p):g}: they must lie in [0, 1]; "
            "pass p-values, not statistics or percentages"
        )
    rows = np.moveaxis(p, axis, -1)
    order = np.argsort(rows, axis=-1)  # NaN comes last
    rank = np.arange(1, rows.shape[-1] + 1)
    tests = (~np.isnan(rows)).sum(-1, keepdims=True)
    steps = np.take_along_axis(rows, order, -1) * (tests / rank)
    # fmin ignores the NaN behind the last test; where there is nothing but NaN, NaN remains.
    least = np.fmin.accumulate(steps[..., ::-1], axis=-1)[..., ::-1]
    q = np.empty_like(rows)
    np.put_along_axis(q, order, least, -1)
    return np.moveaxis(np.where(np.isnan(rows), np.nan, q), -1, axis)


class DeLongTest(NamedTuple):
    """Areas of two scores, and the p-value of their being equal; (C,) each."""

    auc_a: Floats
    auc_b: Floats
    p: Floats


def delong_test(labels: NDArray[np.int64], a: Floats, b: Floats) -> DeLongTest:
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
        return DeLongTest(*np.full((3, a.shape[1]), np.nan))

    def compare(a: Floats, b: Floats) -> Floats:
        of_a, of_b = (structural_components(scores[ones], scores[zeros]) for scores in (a, b))
        return np.stack([of_a[0].mean(0), of_b[0].mean(0), _equal(of_a, of_b)])

    return DeLongTest(*map_columns(compare, a, b))


def structural_components(one: Floats, zero: Floats) -> tuple[Floats, Floats]:
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


_FOLDS = 5


class AUC(NamedTuple):
    """Area under the ROC curve with the ends of its 95 % interval; NaN with under two of a kind."""

    auc: float
    low: float
    high: float


def separability(columns: pd.DataFrame, labels: NDArray[np.int64], seed: int = 0) -> AUC:
    """AUC of a shallow decision tree, each row judged by a tree that has not seen it.

    Three questions one after the other: what such a tree finds, anything finds.

    Args:
        columns: (N, n) numbers, or words, which are asked for one by one.
        labels: (N,) 0 or 1.
        seed: of the division into folds.
    """
    folds = min(_FOLDS, int(np.bincount(labels, minlength=2).min()))
    if folds < 2:
        return AUC(np.nan, np.nan, np.nan)
    numbers = pd.get_dummies(columns).to_numpy(np.float64)
    tree = DecisionTreeClassifier(max_depth=3, random_state=seed)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    scores = cross_val_predict(tree, numbers, labels, cv=split, method="predict_proba")[:, 1]
    return roc_auc(labels, scores)


def roc_auc(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> AUC:
    """AUC and its interval (DeLong et al., Biometrics 1988), at least two rows of each label."""
    one, zero = scores[labels == 1], scores[labels == 0]
    beaten, beating = structural_components(one, zero)
    auc = float(roc_auc_score(labels, scores))
    error = np.sqrt(beaten.var(ddof=1) / len(one) + beating.var(ddof=1) / len(zero))
    reach = float(norm.ppf(0.975) * error)
    return AUC(auc, max(0.0, auc - reach), min(1.0, auc + reach))
