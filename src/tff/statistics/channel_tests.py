"""Tests and effect sizes for many channels at once: one column per channel, one p-value each.

`scipy.stats` does the work where it has the test. `median_test` and `delong_test` are ours because
scipy's median test takes one column at a time and it has no DeLong test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from tff.types import Floats, Ints


def median_test(a: Floats, b: Floats) -> Floats:
    """Mood's median test: do two samples come from distributions with the same median? (1950)

    The grand median splits both samples, values equal to it counting as below; then a chi-square
    test with Yates' correction on the two-by-two table, as `scipy.stats.median_test` per column.

    Args:
        a: (N, C), one column per channel.
        b: (M, C).

    Returns:
        (C,) p-values; 1 where no value lies above the grand median; NaN if a sample is empty.
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
    p: Floats = stats.chi2.sf(statistic, 1)
    return np.where(np.isnan(statistic), 1.0, p)


def wilcoxon(a: Floats, b: Floats) -> Floats:
    """Wilcoxon's signed-rank test: are paired differences symmetric about zero? (1945)

    Two-sided `scipy.stats.wilcoxon` by the normal approximation, without continuity correction.
    Pairs without a difference are dropped. With fewer than about ten pairs that differ, the
    approximation is coarse.

    Args:
        a: (N, C), one column per channel.
        b: (N, C), the same rows measured again.

    Returns:
        (C,) p-values; 1 where no pair differs; NaN without rows and where a value is NaN.

    Raises:
        ValueError: a and b do not share one shape (N, C).
    """
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(
            f"pairs of shapes {a.shape} and {b.shape}: pass two arrays (N, C) with the same rows "
            "in the same order"
        )
    if not a.size:
        return np.full(a.shape[1], np.nan)

    def p_value(a: Floats, b: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = a - b
            p = stats.wilcoxon(difference, axis=0, method="asymptotic").pvalue
        return np.where((difference == 0).all(0), 1.0, p)  # scipy: NaN

    return map_columns(p_value, a, b)


def cliffs_delta(a: Floats, b: Floats) -> Floats:
    """Cliff's delta: P(a > b) - P(a < b) for a random row of each sample (Psych. Bulletin 1993).

    1: every value of a exceeds all of b; -1: the reverse; 0: neither is larger more often. An
    effect size: unlike a p-value it does not shrink as the number of images grows.

    Args:
        a: (N, C), one column per channel.
        b: (M, C).

    Returns:
        (C,) in [-1, 1]; NaN if a sample is empty and where a value is NaN.

    Raises:
        ValueError: a and b differ in their columns.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"samples of shapes {a.shape} and {b.shape}: pass (N, C) and (M, C) with the same "
            "channels as columns"
        )
    if not a.size or not b.size:
        return np.full(a.shape[1], np.nan)

    def delta(a: Floats, b: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):  # in its p-value, which is not used
            wins: Floats = stats.mannwhitneyu(a, b, axis=0, method="asymptotic").statistic
        return (2 * wins - len(a) * len(b)) / (len(a) * len(b))

    return map_columns(delta, a, b)


def benjamini_hochberg(p: Floats) -> Floats:
    """Adjusted p-values (q-values): calling all tests with q <= a keeps the false discovery rate a.

    Benjamini and Hochberg (JRSS B, 1995); valid for independent and positively dependent tests
    (Benjamini and Yekutieli, 2001).

    Args:
        p: (C,) p-values of one family of tests; NaN marks a test that was not made.

    Returns:
        (C,) q-values, each at least its p; NaN stays NaN.

    Raises:
        ValueError: a p-value lies outside [0, 1].
    """
    p = np.asarray(p, np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(
            f"p-values from {np.nanmin(p):g} to {np.nanmax(p):g}: they must lie in [0, 1]; "
            "pass p-values, not statistics or percentages"
        )
    q, tested = np.full_like(p, np.nan), ~np.isnan(p)
    q[tested] = stats.false_discovery_control(p[tested])
    return q


def map_columns(statistic: Callable[..., Floats], *samples: Floats, chunk: int = 2**20) -> Floats:
    """A statistic of columns, computed for a few columns at a time to bound memory.

    Args:
        statistic: samples of c columns as float64, (N, c), (M, c), ... -> (..., c).
        samples: (N, C), (M, C), ... of any numeric type.
        chunk: largest number of values in one call.

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


class DeLongTest(NamedTuple):
    """ROC areas of two scores and p-values of three tests, (C,) each.

    Attributes:
        auc_a: area of the first scores.
        auc_b: area of the second scores.
        p: of equal areas.
        p_strength: of areas equally far from 0.5, on one side of it or on both.
        p_turn: of areas that do not lie on different sides of 0.5.
    """

    auc_a: Floats
    auc_b: Floats
    p: Floats
    p_strength: Floats
    p_turn: Floats


def delong_test(labels: Ints, a: Floats, b: Floats) -> DeLongTest:
    """DeLong's test: do two scores of the same rows separate the labels equally well?

    DeLong, DeLong and Clarke-Pearson (Biometrics, 1988), two-sided; ties count half. An area below
    0.5 separates as well as one above it, so `p_strength` is of both null hypotheses by which the
    areas are equally far from 0.5, A = B and A = 1 - B: the larger of their p-values. `p_turn` is
    the larger of the p-values of A = 0.5 and B = 0.5 where the areas lie on different sides, and 1
    elsewhere. The larger p-value of several tests rejects them all at once and holds the level of
    each (Berger, Technometrics 1982).

    Args:
        labels: (N,) 1 or 0; rows with other labels are ignored.
        a: (N, C) scores, one column per channel, higher for label 1.
        b: (N, C) the other scores of the same rows.

    Returns:
        Areas, NaN unless both labels occur; p-values, NaN with fewer than two rows of a label; `p`
        is 1 where both scores order the rows alike. All are NaN where a score is NaN.

    Raises:
        ValueError: labels, a and b differ in their rows, or a and b in their columns.
    """
    if a.ndim != 2 or a.shape != b.shape or labels.shape != a.shape[:1]:
        raise ValueError(
            f"labels {labels.shape} and scores {a.shape} and {b.shape}: pass (N,), (N, C) and "
            "(N, C) with the same rows in the same order"
        )
    ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if not len(ones) or not len(zeros):
        return DeLongTest(*np.full((5, a.shape[1]), np.nan))

    def compare(a: Floats, b: Floats) -> Floats:
        of_a, of_b = (structural_components(scores[ones], scores[zeros]) for scores in (a, b))
        area_a, area_b = of_a[0].mean(0), of_b[0].mean(0)
        equal = _p_of_area(of_a[0] - of_b[0], of_a[1] - of_b[1], 0)
        mirrored = _p_of_area(of_a[0] + of_b[0], of_a[1] + of_b[1], 1)
        apart = np.maximum(_p_of_area(*of_a, 0.5), _p_of_area(*of_b, 0.5))
        turned = np.where((area_a - 0.5) * (area_b - 0.5) >= 0, 1.0, apart)
        turned[np.isnan(apart)] = np.nan
        return np.stack([area_a, area_b, equal, np.maximum(equal, mirrored), turned])

    return DeLongTest(*map_columns(compare, a, b))


def structural_components(ones: Floats, zeros: Floats) -> tuple[Floats, Floats]:
    """DeLong's structural components: their mean is the ROC area, their variance its variance.

    Args:
        ones: (n, ...) scores of the rows with label 1.
        zeros: (m, ...) scores of the rows with label 0.

    Returns:
        (n, ...) and (m, ...): for each row the share of rows with the other label that it is
        ordered correctly against, ties counting half.
    """
    ranks = stats.rankdata(np.concatenate([ones, zeros]), axis=0)
    of_ones: Floats = (ranks[: len(ones)] - stats.rankdata(ones, axis=0)) / len(zeros)
    of_zeros: Floats = 1 - (ranks[len(ones) :] - stats.rankdata(zeros, axis=0)) / len(ones)
    return of_ones, of_zeros


def _p_of_area(of_ones: Floats, of_zeros: Floats, null: float) -> Floats:
    """(C,) p-value of a mean `null`, from the components (n, C) and (m, C) of an area.

    The components may also be differences or sums of those of two areas of the same rows.
    """
    distance = np.abs(of_ones.mean(0) - null)
    if min(len(of_ones), len(of_zeros)) < 2:
        return np.full_like(distance, np.nan)
    error = np.sqrt(of_ones.var(0, ddof=1) / len(of_ones) + of_zeros.var(0, ddof=1) / len(of_zeros))
    with np.errstate(invalid="ignore", divide="ignore"):
        p: Floats = 2 * stats.norm.sf(distance / error)
    # Without rounding, both would be exactly 0 where all components equal the mean.
    return np.where((distance < 1e-12) & (error < 1e-12), 1.0, p)


class AUC(NamedTuple):
    """Area under the ROC curve and its 95 % interval."""

    auc: float
    low: float
    high: float


def roc_auc(labels: Ints, scores: Floats) -> AUC:
    """ROC area with DeLong's interval (Biometrics, 1988); needs two rows of each label."""
    ones, zeros = scores[labels == 1], scores[labels == 0]
    of_ones, of_zeros = structural_components(ones, zeros)
    auc = float(roc_auc_score(labels, scores))
    error = np.sqrt(of_ones.var(ddof=1) / len(ones) + of_zeros.var(ddof=1) / len(zeros))
    reach = float(stats.norm.ppf(0.975) * error)
    return AUC(auc, max(0.0, auc - reach), min(1.0, auc + reach))


def separability(columns: pd.DataFrame, labels: Ints, seed: int = 0) -> AUC:
    """ROC area of a decision tree of depth 3, cross-validated: what it finds, anything finds.

    Args:
        columns: (N, n) numbers, or words, which are one-hot encoded.
        labels: (N,) 0 or 1.
        seed: of the split into folds.

    Returns:
        The area; NaN with fewer than two rows of a label.
    """
    folds = min(5, int(np.bincount(labels, minlength=2).min()))
    if folds < 2:
        return AUC(np.nan, np.nan, np.nan)
    numbers = pd.get_dummies(columns).to_numpy(np.float64)
    tree = DecisionTreeClassifier(max_depth=3, random_state=seed)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    scores = cross_val_predict(tree, numbers, labels, cv=split, method="predict_proba")[:, 1]
    return roc_auc(labels, scores)
