from __future__ import annotations

from math import erfc, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tff.statistics.channel_tests import delong_test, structural_components

ROWS = st.lists(st.tuples(*[st.integers(0, 3)] * 2), min_size=2, max_size=8)


def wins(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


def by_definition(labels, scores) -> tuple[list[float], float]:
    """DeLong et al. (1988), equations 3 to 7, one number after the other; scores (2, N)."""
    areas, v10, v01 = [], [], []
    for score in scores:
        one, zero = score[labels == 1], score[labels == 0]
        v10.append([sum(wins(x, y) for y in zero) / len(zero) for x in one])
        v01.append([sum(wins(x, y) for x in one) / len(one) for y in zero])
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


@given(ROWS, ROWS)
@settings(max_examples=200, deadline=None)
def test_definition(ones, zeros):
    labels = np.repeat([1, 0], (len(ones), len(zeros)))
    scores = np.array([*ones, *zeros], float).T
    found = delong_test(labels, scores[0, :, None], scores[1, :, None])
    areas, p = by_definition(labels, scores)
    assert [found.auc_a[0], found.auc_b[0]] == pytest.approx(areas, abs=1e-12)
    assert found.p[0] == pytest.approx(p, abs=1e-9)


def test_columns_are_independent_and_rows_in_any_order():
    generator = np.random.default_rng()
    labels = generator.permutation(np.repeat([0, 1], (23, 14)))
    a = (generator.normal(size=(37, 12)) + labels[:, None]).round(1)
    b = (a + generator.normal(size=(37, 12))).round(1)
    found = delong_test(labels, a, b)
    for c in range(12):
        areas, p = by_definition(labels, np.stack([a[:, c], b[:, c]]))
        assert [found.auc_a[c], found.auc_b[c]] == pytest.approx(areas, abs=1e-12)
        assert found.auc_b[c] == pytest.approx(roc_auc_score(labels, b[:, c]), abs=1e-12)
        assert found.p[c] == pytest.approx(p, abs=1e-9)
    swapped = delong_test(labels, b, a)
    np.testing.assert_allclose(swapped.p, found.p, rtol=1e-9)


@pytest.mark.parametrize("together", [0.0, 0.8])
def test_few_false_alarms_without_a_difference(together):
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


def test_a_difference_is_found():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    a = generator.normal(size=(200, 50)) + 1.5 * labels[:, None]
    found = delong_test(labels, a, generator.normal(size=(200, 50)))
    assert (found.p < 0.001).all()
    assert (found.auc_a > found.auc_b).all()


def test_scores_without_variance():
    labels = np.repeat([0, 1], (5, 4))
    better = labels.astype(float)
    pairs = [(better, better), (better, -better), (0 * better, 0 * better), (better, 3 * better)]
    a, b = (np.stack(scores, axis=1) for scores in zip(*pairs, strict=True))
    found = delong_test(labels, a, b)
    assert found.p.tolist() == [1, 0, 1, 1]
    assert found.auc_a.tolist() == [1, 1, 0.5, 1]
    assert found.auc_b.tolist() == [1, 0, 0.5, 1]


def test_a_score_in_another_unit_is_the_same():
    generator = np.random.default_rng()
    a = generator.normal(size=(31, 6)).round(1)
    found = delong_test(np.arange(31) % 2, a, np.exp(a / 2))
    assert (found.p == 1).all()


@pytest.mark.parametrize(("zeros", "ones"), [(0, 0), (0, 3), (3, 0), (1, 3), (3, 1), (1, 1)])
def test_too_few(zeros, ones):
    labels = np.repeat([0, 1], (zeros, ones))
    a, b = np.random.default_rng().normal(size=(2, zeros + ones, 4))
    found = delong_test(labels, a, b)
    assert np.isnan(found.p).all()
    assert found.p.shape == (4,)
    if zeros and ones:
        expected = [roc_auc_score(labels, column) for column in a.T]
        np.testing.assert_allclose(found.auc_a, expected)
    else:
        assert np.isnan([found.auc_a, found.auc_b]).all()


def test_other_labels_are_left_out():
    generator = np.random.default_rng()
    labels = generator.integers(-1, 3, 60)
    a, b = generator.normal(size=(2, 60, 3))
    mine = (labels == 0) | (labels == 1)
    expected = delong_test(labels[mine], a[mine], b[mine])
    np.testing.assert_array_equal(delong_test(labels, a, b), expected)


def test_numbers_that_are_missing_spoil_their_column_only():
    a, b = np.random.default_rng().normal(size=(2, 20, 3))
    a[3, 2] = np.nan
    found = delong_test(np.arange(20) % 2, a, b)
    assert np.isnan(found.p).tolist() == [False, False, True]
    assert np.isnan(found.auc_a).tolist() == [False, False, True]


@pytest.mark.parametrize(("rows", "shape"), [(4, (5, 2)), (5, (5, 3)), (5, (4, 2)), (5, (5,))])
def test_other_rows(rows, shape):
    with pytest.raises(ValueError, match="same rows in the same order"):
        delong_test(np.arange(rows) % 2, np.zeros((5, 2)), np.zeros(shape))


def test_components_of_one_score():
    one, zero = np.array([1.0, 2, 3]), np.array([2.0, 0])
    beaten, beating = structural_components(one, zero)
    assert beaten.tolist() == pytest.approx([0.5, 0.75, 1])
    assert beating.tolist() == pytest.approx([0.5, 1])
