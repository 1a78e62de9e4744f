from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from tff.statistics.detection import (
    area_under_curve,
    average_precision,
    curve,
    true_positive_rate_at,
)

# Few different values, so that ties abound.
PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=30)


def by_scikit_learn(labels: np.ndarray, scores: np.ndarray, rate: float) -> float:
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(true[false <= rate].max())


@given(PAIRS, st.sampled_from([0, 0.01, 0.05, 0.1, 1 / 3, 0.5, 0.9, 1]))
@settings(max_examples=300, deadline=None)
def test_ties(pairs, rate):
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    scores = scores.astype(float)
    found, area = true_positive_rate_at(labels, scores, rate), area_under_curve(labels, scores)
    if 0 < labels.sum() < len(labels):
        assert found == by_scikit_learn(labels, scores, rate)
        assert area == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    else:
        assert np.isnan([found, area]).all()
    same = average_precision(labels, scores)
    np.testing.assert_allclose(curve(labels, scores).average_precision(), same, rtol=1e-12)


def test_many_sets_at_once():
    generator = np.random.default_rng()
    labels = generator.integers(0, 2, (4, 5, 41))
    labels[..., 0], labels[..., 1] = 0, 1
    scores = (generator.normal(size=(4, 5, 41)) + labels).round(1)
    rates, areas = true_positive_rate_at(labels, scores, 0.1), area_under_curve(labels, scores)
    assert rates.shape == areas.shape == (4, 5)
    for at in np.ndindex(4, 5):
        assert rates[at] == by_scikit_learn(labels[at], scores[at], 0.1)
        assert areas[at] == pytest.approx(roc_auc_score(labels[at], scores[at]), abs=1e-12)


@given(PAIRS, st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_weights_are_copies(pairs, seed):
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    weights = np.random.default_rng(seed).integers(0, 3, (5, len(labels)))
    found = curve(labels, scores.astype(float), weights)
    areas, precisions = found.area(), found.average_precision()
    rates = found.true_positive_rate_at(0.2)
    for i, times in enumerate(weights):
        y, s = np.repeat(labels, times), np.repeat(scores, times)
        if 0 < y.sum() < len(y):
            assert areas[i] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
            assert precisions[i] == pytest.approx(average_precision_score(y, s), abs=1e-12)
            assert rates[i] == by_scikit_learn(y, s, 0.2)
        else:
            assert np.isnan([areas[i], rates[i]]).all()
            assert np.isnan(precisions[i]) == (not y.any())


def test_nothing_is_caught_before_the_first_false_alarm():
    labels, scores = np.array([0, 1, 1, 0]), np.array([3.0, 2, 1, 0])
    assert true_positive_rate_at(labels, scores, 0.49) == 0
    assert true_positive_rate_at(labels, scores, 0.5) == 1


def test_wide_scores():
    labels, scores = np.array([0, 1, 0, 1]), np.array([-np.inf, np.inf, 1e308, 700.0])
    assert area_under_curve(labels, scores) == 0.75
    assert true_positive_rate_at(labels, scores, 0) == 0.5


def test_scores_that_are_missing():
    labels, scores = np.array([0, 1, 0, 1]), np.array([[0, np.nan, 1, 2], [0, 3, 1, 2.0]])
    labels = np.broadcast_to(labels, (2, 4))
    assert np.isnan(area_under_curve(labels, scores)).tolist() == [True, False]
    assert np.isnan(true_positive_rate_at(labels, scores, 0.5)).tolist() == [True, False]


def test_no_image():
    labels, scores = np.zeros((3, 0), np.int64), np.zeros((3, 0))
    assert np.isnan(area_under_curve(labels, scores)).tolist() == [True] * 3
    assert np.isnan(true_positive_rate_at(labels, scores, 0.1)).tolist() == [True] * 3
    assert area_under_curve(labels.reshape(0, 3), scores.reshape(0, 3)).shape == (0,)


@pytest.mark.parametrize("rate", [-0.1, 5, np.nan])
def test_no_rate(rate):
    with pytest.raises(ValueError, match=r"0\.05 is 5 percent"):
        true_positive_rate_at(np.array([0, 1]), np.array([0.0, 1.0]), rate)
