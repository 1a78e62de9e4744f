from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from tff.statistics.detection import bin_index, brier_score, expected_calibration_error

PAIRS = st.lists(
    st.tuples(st.integers(0, 1), st.floats(0, 1) | st.integers(0, 15).map(lambda i: i / 15)),
    min_size=1,
    max_size=40,
)


def by_definition(labels: list[int], p: list[float], bins: int) -> float:
    edges = np.linspace(0, 1, bins + 1).tolist()
    error = 0.0
    for i in range(bins):
        last = i == bins - 1
        mine = [k for k in range(len(p)) if edges[i] <= p[k] and (p[k] < edges[i + 1] or last)]
        if mine:
            sure = sum(p[k] for k in mine) / len(mine)
            right = sum(labels[k] for k in mine) / len(mine)
            error += len(mine) / len(p) * abs(sure - right)
    return error


@given(PAIRS, st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_definition(pairs, bins):
    labels, p = zip(*pairs, strict=True)
    found = expected_calibration_error(np.array(labels), np.array(p), bins)
    assert found == pytest.approx(by_definition(labels, p, bins), abs=1e-12)


@pytest.mark.parametrize("images", [1, 2, 33, 500])
def test_against_others(images):
    generator = np.random.default_rng()
    labels = generator.integers(0, 2, (4, 3, images))
    p = generator.beta(0.5, 0.5, (4, 3, images))
    p = np.minimum(p, 1 - 1e-12)  # torchmetrics gives 1 a 16th bin of its own
    error, score = expected_calibration_error(labels, p), brier_score(labels, p)
    assert error.shape == score.shape == (4, 3)
    for at in np.ndindex(4, 3):
        theirs = binary_calibration_error(
            torch.tensor(p[at]), torch.tensor(labels[at]), n_bins=15, norm="l1"
        )
        assert error[at] == pytest.approx(theirs.item(), abs=1e-12)
        assert score[at] == pytest.approx(brier_score_loss(labels[at], p[at]), abs=1e-12)


def test_certain_and_nearly_certain_share_a_bin():
    assert bin_index(np.array([0, 0.99, 1.0])).tolist() == [0, 14, 14]
    labels, p = np.array([1, 0]), np.array([0.96, 1.0])
    assert expected_calibration_error(labels, p) == pytest.approx((1.96 - 1) / 2)


def test_perfect_and_worst():
    labels = np.array([0, 1, 1])
    assert expected_calibration_error(labels, labels.astype(float)) == 0
    assert brier_score(labels, labels.astype(float)) == 0
    assert expected_calibration_error(labels, 1.0 - labels) == 1
    assert brier_score(labels, 1.0 - labels) == 1


def test_probabilities_that_say_what_is_so():
    generator = np.random.default_rng(0)
    p = generator.random(200_000)
    labels = (generator.random(200_000) < p).astype(int)
    assert expected_calibration_error(labels, p) < 0.01
    assert expected_calibration_error(labels, p**2) > 0.1
    assert brier_score(labels, p) == pytest.approx(1 / 6, abs=0.003)


@pytest.mark.parametrize("function", [expected_calibration_error, brier_score])
def test_nothing_and_unknown(function):
    assert np.isnan(function(np.zeros((2, 0), int), np.zeros((2, 0)))).tolist() == [True, True]
    assert np.isnan(function(np.zeros(0, int), np.zeros(0)))
    assert function(np.zeros((0, 4), int), np.zeros((0, 4))).shape == (0,)
    p = np.array([[0.2, np.nan], [0.2, 0.4]])
    assert np.isnan(function(np.zeros((2, 2), int), p)).tolist() == [True, False]


@pytest.mark.parametrize("function", [expected_calibration_error, brier_score])
@pytest.mark.parametrize("wrong", [-0.01, 1.01, np.inf])
def test_no_probabilities(function, wrong):
    with pytest.raises(ValueError, match="map logits"):
        function(np.array([0, 1]), np.array([0.5, wrong]))
