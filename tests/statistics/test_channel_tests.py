"""Tests of many channels, against scipy, scikit-learn and their definitions."""

from __future__ import annotations

import json
from math import erfc, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tff.statistics.bootstrap import count_draws, draw_resamples
from tff.statistics.channel_tests import (
    benjamini_hochberg,
    cliffs_delta,
    delong_test,
    map_columns,
    median_test,
    roc_auc,
    separability,
    structural_components,
    wilcoxon,
)
from tff.statistics.detection import count_above_thresholds

MEDIAN_GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "statistics.npz")
MEDIAN_COLUMN = st.lists(st.integers(0, 4), min_size=1, max_size=25)


def median_reference(a: np.ndarray, b: np.ndarray) -> float:
    try:
        return float(scipy.stats.median_test(a, b, ties="below", correction=True)[1])
    except ValueError:  # no value lies above the grand median
        return 1.0


@given(MEDIAN_COLUMN, MEDIAN_COLUMN)
def test_median_ties_and_constant_columns(a, b):
    a, b = np.array(a, float), np.array(b, float)
    assert median_test(a[:, None], b[:, None])[0] == pytest.approx(
        median_reference(a, b), abs=1e-12
    )


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (7, 30), (30, 30)])
def test_median_columns_are_independent(n, m):
    generator = np.random.default_rng(n + m)
    a, b = generator.normal(size=(n, 12)), generator.normal(0.7, 1, size=(m, 12))
    a[:, 3] = b[:, 3] = 2
    expected = [median_reference(a[:, c], b[:, c]) for c in range(12)]
    np.testing.assert_allclose(median_test(a, b), expected, rtol=0, atol=1e-12)
    assert median_test(a, b)[3] == 1


def test_median_without_rows():
    assert np.isnan(median_test(np.zeros((0, 3)), np.ones((4, 3)))).all()
    assert median_test(np.zeros((4, 0)), np.ones((4, 0))).shape == (0,)


@pytest.mark.parametrize("i", range(5))
def test_median_released_code(i):
    a, b = MEDIAN_GOLDEN[f"med{i}_a"], MEDIAN_GOLDEN[f"med{i}_b"]
    expected = json.loads(str(MEDIAN_GOLDEN["meta"]))["median_test"][i]["p"]
    assert median_test(a[:, None], b[:, None])[0] == pytest.approx(expected, abs=1e-12)


# Few different values, so that ties and pairs without a difference abound.
WILCOXON_PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=25)


def wilcoxon_reference(a: np.ndarray, b: np.ndarray) -> float:
    if (a == b).all():
        return 1.0
    return float(scipy.stats.wilcoxon(a, b, method="asymptotic", correction=False).pvalue)


@given(WILCOXON_PAIRS)
def test_wilcoxon_ties_and_equal_pairs(pairs):
    a, b = np.array(pairs, float).T
    assert wilcoxon(a[:, None], b[:, None])[0] == pytest.approx(wilcoxon_reference(a, b), abs=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 9, 100])
def test_wilcoxon_columns_are_independent(rng, rows):
    a = rng.normal(size=(rows, 15)).round(1)
    b = (a + rng.normal(0.2, 1, (rows, 15))).round(1)
    b[:, 3] = a[:, 3]
    b[:, 4] = a[:, 4] + 1
    found = wilcoxon(a, b)
    np.testing.assert_allclose(
        found, [wilcoxon_reference(a[:, c], b[:, c]) for c in range(15)], atol=1e-12
    )
    assert found[3] == 1
    np.testing.assert_array_equal(found, wilcoxon(b, a))


def test_wilcoxon_paper_example():
    # Wilcoxon (1945), plots of wheat: ranks of the negative differences add up to 3 of 36.
    a = np.array([209.0, 200, 177, 169, 159, 169, 187, 198])
    b = np.array([151.0, 168, 147, 164, 166, 163, 176, 188])
    difference = a - b
    ranks = scipy.stats.rankdata(np.abs(difference))
    assert ranks[difference < 0].sum() == 3
    z = (33 - 18) / np.sqrt(8 * 9 * 17 / 24)
    assert wilcoxon(a[:, None], b[:, None])[0] == pytest.approx(2 * scipy.stats.norm.sf(z))


def test_wilcoxon_few_false_alarms_without_an_effect():
    generator = np.random.default_rng(0)
    a = generator.normal(size=(60, 4000))
    p = wilcoxon(a, a + generator.laplace(size=(60, 4000)))
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.01)
    assert (p < 0.5).mean() == pytest.approx(0.5, abs=0.025)


def test_wilcoxon_pairs_tell_what_two_samples_cannot():
    generator = np.random.default_rng(1)
    a = 100 * generator.normal(size=(50, 1))
    b = a + 1 + 0.1 * generator.normal(size=(50, 1))
    assert wilcoxon(a, b)[0] < 1e-8
    assert scipy.stats.mannwhitneyu(a[:, 0], b[:, 0]).pvalue > 0.5


def test_wilcoxon_numbers_that_are_missing_spoil_their_column_only(rng):
    a, b = rng.normal(size=(2, 20, 3))
    a[4, 1] = np.nan
    found = wilcoxon(a, b)
    assert np.isnan(found).tolist() == [False, True, False]
    a[4, 1], b[4, 1] = np.inf, np.inf
    assert np.isnan(wilcoxon(a, b)[1])


def test_wilcoxon_without_rows_or_columns():
    assert np.isnan(wilcoxon(np.zeros((0, 3)), np.zeros((0, 3)))).all()
    assert wilcoxon(np.zeros((4, 0)), np.zeros((4, 0))).shape == (0,)


@pytest.mark.parametrize("shape", [(4, 2), (5, 3), (5,)])
def test_wilcoxon_no_pairs(shape):
    with pytest.raises(ValueError, match="same rows in the same order"):
        wilcoxon(np.zeros((5, 2)), np.zeros(shape))


@pytest.mark.parametrize("chunk", [1, 24, 70, 10**6])
def test_wilcoxon_chunks_of_columns(rng, chunk):
    a, b = rng.normal(size=(5, 31)).astype(np.float32), rng.normal(size=(7, 31))

    def sums(*samples):
        assert all(sample.dtype == np.float64 for sample in samples)
        assert sum(sample.size for sample in samples) <= max(chunk, 12)
        return np.stack([sample.sum(0) for sample in samples])

    expected = [a.astype(np.float64).sum(0), b.sum(0)]
    np.testing.assert_allclose(map_columns(sums, a, b, chunk=chunk), expected, rtol=1e-12)


CLIFFS_DELTA_COLUMN = st.lists(st.integers(-2, 2), min_size=1, max_size=12)


def cliffs_delta_by_definition(a: np.ndarray, b: np.ndarray) -> float:
    return sum(float(x > y) - float(x < y) for x in a for y in b) / (len(a) * len(b))


@given(CLIFFS_DELTA_COLUMN, CLIFFS_DELTA_COLUMN)
def test_cliffs_delta_ties(a, b):
    a, b = np.array(a, float), np.array(b, float)
    found = cliffs_delta(a[:, None], b[:, None])[0]
    assert found == pytest.approx(cliffs_delta_by_definition(a, b), abs=1e-14)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 8), (13, 4), (40, 41)])
def test_cliffs_delta_columns_are_independent(rng, n, m):
    a, b = rng.normal(size=(n, 9)).round(1), rng.normal(0.5, 1, (m, 9)).round(1)
    a[:, 2] = b[:, 2] = 3
    found = cliffs_delta(a, b)
    expected = [cliffs_delta_by_definition(a[:, c], b[:, c]) for c in range(9)]
    np.testing.assert_allclose(found, expected, atol=1e-14)
    np.testing.assert_array_equal(found, -cliffs_delta(b, a))
    assert found[2] == 0


def test_cliffs_delta_ends_are_reached_exactly():
    a, b = np.arange(7.0)[:, None], np.arange(7.0, 18.0)[:, None]
    assert cliffs_delta(a, b)[0] == -1
    assert cliffs_delta(b, a)[0] == 1


def test_cliffs_delta_only_the_order_counts(rng):
    a, b = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    np.testing.assert_array_equal(cliffs_delta(a, b), cliffs_delta(np.exp(a), np.exp(b)))


def test_cliffs_delta_nothing_to_compare():
    assert np.isnan(cliffs_delta(np.zeros((0, 3)), np.ones((4, 3)))).all()
    assert np.isnan(cliffs_delta(np.ones((4, 3)), np.zeros((0, 3)))).all()
    assert cliffs_delta(np.ones((4, 0)), np.zeros((2, 0))).shape == (0,)


def test_cliffs_delta_numbers_that_are_missing_spoil_their_column_only(rng):
    a, b = rng.normal(size=(2, 6, 3))
    b[2, 0] = np.nan
    assert np.isnan(cliffs_delta(a, b)).tolist() == [True, False, False]


@pytest.mark.parametrize("shape", [(4, 2), (4,)])
def test_cliffs_delta_other_columns(shape):
    with pytest.raises(ValueError, match="same channels"):
        cliffs_delta(np.zeros((5, 3)), np.zeros(shape))


# Few different values, so that ties abound, and the ends.
BENJAMINI_HOCHBERG_P = st.lists(
    st.sampled_from([0.0, 1e-300, 0.01, 0.02, 0.04, 0.05, 0.5, 0.99, 1.0]), max_size=12
)


def benjamini_hochberg_by_definition(p: list[float]) -> list[float]:
    ascending = sorted(p)
    m = len(p)
    return [
        min([1.0, *(other * m / (j + 1) for j, other in enumerate(ascending) if other >= mine)])
        for mine in p
    ]


@given(BENJAMINI_HOCHBERG_P)
def test_benjamini_hochberg_definition(p):
    found = benjamini_hochberg(np.array(p))
    assert found.tolist() == pytest.approx(benjamini_hochberg_by_definition(p), abs=1e-15)


@given(BENJAMINI_HOCHBERG_P, st.floats(0.001, 1))
def test_benjamini_hochberg_calls_are_those_of_the_step_up_procedure(p, level):
    ascending = sorted(p)
    passing = [i for i, value in enumerate(ascending) if value <= level * (i + 1) / len(p)]
    cut = ascending[passing[-1]] if passing else -1
    # Rounding may move a p-value that lies on the line itself.
    near = any(abs(v - level * (i + 1) / len(p)) < 1e-12 for i, v in enumerate(ascending))
    if not near:
        found = benjamini_hochberg(np.array(p)) <= level
        assert found.tolist() == [value <= cut for value in p]


def test_benjamini_hochberg_missing_tests_are_not_counted(rng):
    p = rng.random(40) ** 2
    p[::3] = np.nan
    found = benjamini_hochberg(p)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(p))
    there = ~np.isnan(p)
    np.testing.assert_allclose(found[there], benjamini_hochberg_by_definition(p[there].tolist()))
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


def test_benjamini_hochberg_argument_is_left_alone():
    p = np.array([0.5, np.nan, 0.01])
    benjamini_hochberg(p)
    np.testing.assert_array_equal(p, [0.5, np.nan, 0.01])


@pytest.mark.parametrize("wrong", [-0.1, 1.5, np.inf])
def test_benjamini_hochberg_no_p_values(wrong):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        benjamini_hochberg(np.array([0.5, wrong, np.nan]))


def test_benjamini_hochberg_few_false_calls():
    generator = np.random.default_rng(0)
    families, tests, true = 2000, 50, 20
    p = generator.random((families, tests))
    p[:, :true] **= 8
    called = np.array([benjamini_hochberg(family) for family in p]) <= 0.2
    false = called[:, true:].sum(1) / np.maximum(called.sum(1), 1)
    # On average exactly the level times the share of tests without an effect.
    assert false.mean() == pytest.approx(0.2 * (tests - true) / tests, abs=0.01)
    assert called[:, :true].mean() > 0.5


DELONG_ROWS = st.lists(st.tuples(*[st.integers(0, 3)] * 2), min_size=2, max_size=8)


def delong_wins(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


def delong_by_definition(labels, scores) -> tuple[list[float], float]:
    """DeLong et al. (1988), equations 3 to 7, one number after the other; scores (2, N)."""
    areas, v10, v01 = [], [], []
    for score in scores:
        one, zero = score[labels == 1], score[labels == 0]
        v10.append([sum(delong_wins(x, y) for y in zero) / len(zero) for x in one])
        v01.append([sum(delong_wins(x, y) for x in one) / len(one) for y in zero])
        areas.append(sum(v10[-1]) / len(one))
    covariance = np.zeros((2, 2))
    for parts in (v10, v01):
        n = len(parts[0])
        for r in range(2):
            for s in range(2):
                pairs = zip(parts[r], parts[s], strict=True)
                products = sum((x - areas[r]) * (y - areas[s]) for x, y in pairs)
                covariance[r, s] += products / (n - 1) / n
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = abs(areas[0] - areas[1])
    if variance < 1e-14:
        return areas, 1.0 if difference < 1e-12 else 0.0
    return areas, erfc(difference / sqrt(variance) / sqrt(2))


@given(DELONG_ROWS, DELONG_ROWS)
def test_delong_definition(ones, zeros):
    labels = np.repeat([1, 0], (len(ones), len(zeros)))
    scores = np.array([*ones, *zeros], float).T
    found = delong_test(labels, scores[0, :, None], scores[1, :, None])
    areas, p = delong_by_definition(labels, scores)
    assert [found.auc_a[0], found.auc_b[0]] == pytest.approx(areas, abs=1e-12)
    assert found.p[0] == pytest.approx(p, abs=1e-9)


def test_delong_columns_are_independent_and_rows_in_any_order(rng):
    labels = rng.permutation(np.repeat([0, 1], (23, 14)))
    a = (rng.normal(size=(37, 12)) + labels[:, None]).round(1)
    b = (a + rng.normal(size=(37, 12))).round(1)
    found = delong_test(labels, a, b)
    for c in range(12):
        areas, p = delong_by_definition(labels, np.stack([a[:, c], b[:, c]]))
        assert [found.auc_a[c], found.auc_b[c]] == pytest.approx(areas, abs=1e-12)
        assert found.auc_b[c] == pytest.approx(roc_auc_score(labels, b[:, c]), abs=1e-12)
        assert found.p[c] == pytest.approx(p, abs=1e-9)
    swapped = delong_test(labels, b, a)
    np.testing.assert_allclose(swapped.p, found.p, rtol=1e-9)


@pytest.mark.parametrize("together", [0.0, 0.8])
def test_delong_few_false_alarms_without_a_difference(together):
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    shared = sqrt(together) * generator.normal(size=(100, 4000))
    a, b = (
        shared + sqrt(1 - together) * generator.normal(size=(100, 4000)) + labels[:, None]
        for _ in range(2)
    )
    p = delong_test(labels, a, b).p
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.012)
    assert (p < 0.5).mean() == pytest.approx(0.5, abs=0.03)


def test_delong_a_difference_is_found():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    a = generator.normal(size=(200, 50)) + 1.5 * labels[:, None]
    found = delong_test(labels, a, generator.normal(size=(200, 50)))
    assert (found.p < 0.001).all()
    assert (found.auc_a > found.auc_b).all()


def test_delong_scores_without_variance():
    labels = np.repeat([0, 1], (5, 4))
    better = labels.astype(float)
    pairs = [(better, better), (better, -better), (0 * better, 0 * better), (better, 3 * better)]
    a, b = (np.stack(scores, axis=1) for scores in zip(*pairs, strict=True))
    found = delong_test(labels, a, b)
    assert found.p.tolist() == [1, 0, 1, 1]
    assert found.auc_a.tolist() == [1, 1, 0.5, 1]
    assert found.auc_b.tolist() == [1, 0, 0.5, 1]


def test_delong_a_score_in_another_unit_is_the_same(rng):
    a = rng.normal(size=(31, 6)).round(1)
    found = delong_test(np.arange(31) % 2, a, np.exp(a / 2))
    assert (found.p == 1).all()


@pytest.mark.parametrize(("zeros", "ones"), [(0, 0), (0, 3), (3, 0), (1, 3), (3, 1), (1, 1)])
def test_delong_too_few(rng, zeros, ones):
    labels = np.repeat([0, 1], (zeros, ones))
    a, b = rng.normal(size=(2, zeros + ones, 4))
    found = delong_test(labels, a, b)
    assert np.isnan(found.p).all()
    assert found.p.shape == (4,)
    if zeros and ones:
        expected = [roc_auc_score(labels, column) for column in a.T]
        np.testing.assert_allclose(found.auc_a, expected)
    else:
        assert np.isnan([found.auc_a, found.auc_b]).all()


def test_delong_other_labels_are_left_out(rng):
    labels = rng.integers(-1, 3, 60)
    a, b = rng.normal(size=(2, 60, 3))
    mine = (labels == 0) | (labels == 1)
    expected = delong_test(labels[mine], a[mine], b[mine])
    np.testing.assert_array_equal(delong_test(labels, a, b), expected)


def test_delong_numbers_that_are_missing_spoil_their_column_only(rng):
    a, b = rng.normal(size=(2, 20, 3))
    a[3, 2] = np.nan
    found = delong_test(np.arange(20) % 2, a, b)
    assert np.isnan(found.p).tolist() == [False, False, True]
    assert np.isnan(found.auc_a).tolist() == [False, False, True]


@pytest.mark.parametrize(("rows", "shape"), [(4, (5, 2)), (5, (5, 3)), (5, (4, 2)), (5, (5,))])
def test_delong_other_rows(rows, shape):
    with pytest.raises(ValueError, match="same rows in the same order"):
        delong_test(np.arange(rows) % 2, np.zeros((5, 2)), np.zeros(shape))


def test_delong_components_of_one_score():
    one, zero = np.array([1.0, 2, 3]), np.array([2.0, 0])
    beaten, beating = structural_components(one, zero)
    assert beaten.tolist() == pytest.approx([0.5, 0.75, 1])
    assert beating.tolist() == pytest.approx([0.5, 1])


def test_separability_interval_is_that_of_the_bootstrap(rng):
    labels = np.repeat([0, 1], (150, 90))
    scores = np.round(rng.normal(size=240) + 0.8 * labels, 1)  # with ties
    auc, low, high = roc_auc(labels, scores)
    assert auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    weights = count_draws(draw_resamples(labels, 1500, int(rng.integers(2**32))), 240)
    draws = count_above_thresholds(labels, scores, weights).roc_auc()
    expected = np.quantile(draws, [0.025, 0.975])
    assert [low, high] == pytest.approx(expected, abs=0.02)


def test_separability_delong_by_its_definition(rng):
    one, zero = rng.integers(0, 6, 9).astype(float), rng.integers(0, 6, 7).astype(float)
    wins = (one[:, None] > zero) + 0.5 * (one[:, None] == zero)
    error = np.sqrt(wins.mean(1).var(ddof=1) / 9 + wins.mean(0).var(ddof=1) / 7)
    found = roc_auc(np.repeat([1, 0], (9, 7)), np.concatenate([one, zero]))
    assert found.auc == pytest.approx(wins.mean())
    assert found.high == pytest.approx(min(1, wins.mean() + 1.959964 * error))
    assert found.low == pytest.approx(max(0, wins.mean() - 1.959964 * error))


def test_separability_words_and_numbers_that_tell():
    labels = np.repeat([0, 1], 40)
    kind = pd.DataFrame({"format": np.where(labels, "PNG", "JPEG"), "height": 8})
    assert separability(kind, labels) == (1.0, 1.0, 1.0)
    nothing = pd.DataFrame({"format": "PNG", "height": 8}, index=range(80))
    assert separability(nothing, labels).auc == 0.5


def test_separability_no_signal_gives_no_alarm_too_often():
    rng, above = np.random.default_rng(0), 0
    labels = np.repeat([0, 1], 60)
    for _ in range(40):
        noise = pd.DataFrame(
            {"height": rng.integers(100, 400, 120), "q": rng.integers(50, 99, 120)}
        )
        auc, low, _high = separability(noise, labels)
        above += auc > 0.6 and low > 0.5
    assert above <= 4


@pytest.mark.parametrize("count", [0, 1])
def test_separability_too_few(count):
    labels = np.repeat([0, 1], (5, count))
    assert np.isnan(separability(pd.DataFrame({"a": range(len(labels))}), labels)).all()
