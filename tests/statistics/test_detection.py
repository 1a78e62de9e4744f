"""Calibration and accuracies, against the released code's numbers and scikit-learn's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    recall_score,
    roc_auc_score,
    roc_curve,
)
from tests.helpers.bootstrap_by_hand import ends
from torchmetrics.functional.classification import binary_calibration_error

from tff.statistics.bootstrap import draw_resamples
from tff.statistics.detection import MEASURES, best_threshold, detection, measures, sigmoid

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "statistics.npz")
CALIBRATIONS = json.loads(str(GOLDEN["meta"]))["calibration"]


@pytest.mark.parametrize("i", range(4))
def test_released_code(i):
    labels, p = GOLDEN[f"cal{i}_y_true"], GOLDEN[f"cal{i}_y_prob"]
    expected = CALIBRATIONS[i]
    cut = best_threshold(labels, p)
    assert cut == pytest.approx(expected["threshold"], abs=1e-12)
    for name, at in (("calibrated", cut), ("at_half", 0.5)):
        found = detection(labels, p, p > at, draw_resamples(labels, 3, 0))
        assert found["ap"] == pytest.approx(expected[name]["ap"], abs=1e-12)
        assert found["real_accuracy"] == pytest.approx(expected[name]["r_acc"], abs=1e-12)
        assert found["fake_accuracy"] == pytest.approx(expected[name]["f_acc"], abs=1e-12)


def test_oracle_is_the_first_best_threshold():
    labels = np.array([0, 0, 1, 0, 1, 1])
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.9])
    candidates = sorted(set(p.tolist()), reverse=True)
    means = [
        np.sqrt((p[labels == 1] >= t).mean() * (p[labels == 0] < t).mean()) for t in candidates
    ]
    assert best_threshold(labels, p) == candidates[int(np.argmax(means))]


def test_detection_against_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 60)
    scores = (labels + generator.normal(0, 1, 60)).round(1)
    called, rows = scores > 0.4, draw_resamples(labels, 200, 7)
    found = detection(labels, scores, called, rows)
    statistics = {
        "ap": lambda at: average_precision_score(labels[at], scores[at]),
        "real_accuracy": lambda at: recall_score(labels[at], called[at], pos_label=0),
        "fake_accuracy": lambda at: recall_score(labels[at], called[at], pos_label=1),
    }
    assert set(found) == {f"{s}{end}" for s in statistics for end in ("", "_low", "_high")}
    for name, statistic in statistics.items():
        assert found[name] == pytest.approx(statistic(np.arange(60)), abs=1e-12)
        low, high = ends(statistic(np.arange(60)), [statistic(row) for row in rows])
        assert found[f"{name}_low"] == pytest.approx(low, abs=1e-12)
        assert found[f"{name}_high"] == pytest.approx(high, abs=1e-12)
        assert low <= found[name] <= high


@pytest.mark.parametrize(("label", "missing"), [(0, "fake_accuracy"), (1, "real_accuracy")])
def test_one_kind_of_image(label, missing):
    labels = np.full(5, label)
    found = detection(labels, np.arange(5.0), np.full(5, label == 1), draw_resamples(labels, 10, 0))
    assert np.isnan([found[missing], found[f"{missing}_low"], found[f"{missing}_high"]]).all()
    assert np.isnan(found["ap"]) == (label == 0)
    other = "real_accuracy" if label == 0 else "fake_accuracy"
    assert found[other] == found[f"{other}_low"] == found[f"{other}_high"] == 1


def test_sigmoid_does_not_overflow():
    logits = np.array([-1e4, -30, -1, 0, 1, 30, 1e4])
    with np.errstate(over="raise", invalid="raise"):
        p = sigmoid(logits)
    np.testing.assert_allclose(p[1:-1], 1 / (1 + np.exp(-logits[1:-1])), rtol=1e-14)
    assert p[0] == 0
    assert p[-1] == 1


def caught(labels: np.ndarray, scores: np.ndarray, rate: float) -> float:
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return true[false <= rate].max()


def one_by_one(labels, scores, called, p) -> dict[str, float]:
    error = binary_calibration_error(torch.tensor(p), torch.tensor(labels), n_bins=15)
    return {
        "ap": average_precision_score(labels, scores),
        "auc": roc_auc_score(labels, scores),
        "real_accuracy": recall_score(labels, called, pos_label=0),
        "fake_accuracy": recall_score(labels, called, pos_label=1),
        "balanced_accuracy": balanced_accuracy_score(labels, called),
        "tpr_at_1": caught(labels, scores, 0.01),
        "tpr_at_5": caught(labels, scores, 0.05),
        "ece": error.item(),
        "brier": brier_score_loss(labels, p),
    }


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize(("real", "fake"), [(1, 1), (2, 7), (150, 120)])
def test_measures_of_every_resample(decimals, real, fake):
    generator = np.random.default_rng()
    labels = generator.permutation(np.repeat([0, 1], (real, fake)))
    scores = (labels + generator.normal(0, 1, real + fake)).round(decimals)
    called, p, rows = scores > 0.4, sigmoid(scores), draw_resamples(labels, 25, 7)
    found = measures(labels, scores, called, p, rows)
    assert tuple(found) == MEASURES
    for name, value in one_by_one(labels, scores, called, p).items():
        assert found[name].value == pytest.approx(value, abs=1e-12), name
    for i, row in enumerate(rows):
        expected = one_by_one(labels[row], scores[row], called[row], p[row])
        for name, value in expected.items():
            assert found[name].draws[i] == pytest.approx(value, abs=1e-12), name


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-2, 2)), max_size=12), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_measures_of_any_images(pairs, draws):
    labels = np.array([label for label, _ in pairs], np.int64)
    scores = np.array([score for _, score in pairs], np.float64)
    rows = draw_resamples(labels, draws, 0)
    found = measures(labels, scores, scores > 0, sigmoid(scores), rows)
    real, fake = bool((labels == 0).any()), bool((labels == 1).any())
    needed = {
        "ap": fake,
        "real_accuracy": real,
        "fake_accuracy": fake,
        "ece": real or fake,
        "brier": real or fake,
    }
    for name, estimate in found.items():
        defined = needed.get(name, real and fake)
        assert np.isfinite(estimate.value) == defined, name
        assert estimate.draws.shape == (draws,)
        assert (np.isfinite(estimate.draws) == defined).all(), name
        assert np.isfinite(estimate.low) == np.isfinite(estimate.high) == (defined and draws > 0)


@pytest.mark.parametrize("chunk", [1, 100, 10**7])
def test_measures_do_not_depend_on_the_chunk(chunk, monkeypatch):
    generator = np.random.default_rng()
    labels, scores = generator.integers(0, 2, 40), generator.normal(size=40)
    arguments = labels, scores, scores > 0, sigmoid(scores), draw_resamples(labels, 31, 0)
    expected = measures(*arguments)
    monkeypatch.setattr("tff.statistics.detection._CHUNK", chunk)
    for name, estimate in measures(*arguments).items():
        assert estimate.draws == pytest.approx(expected[name].draws, abs=1e-12)


def test_detection_is_part_of_the_measures():
    generator = np.random.default_rng()
    labels, scores = generator.integers(0, 2, 50), generator.normal(size=50).round(1)
    rows = draw_resamples(labels, 60, 0)
    found = measures(labels, scores, scores > 0, sigmoid(scores), rows)
    for column, number in detection(labels, scores, scores > 0, rows).items():
        name, _, end = column.replace("_low", ":low").replace("_high", ":high").partition(":")
        assert number == getattr(found[name], end or "value")


def test_what_is_unknown_spoils_only_what_needs_it():
    labels, scores = np.arange(8) % 2, np.arange(8.0)
    rows = draw_resamples(labels, 5, 0)
    p = sigmoid(scores)
    p[2] = np.nan
    found = measures(labels, scores, scores > 4, p, rows)
    assert {name for name in found if np.isnan(found[name].value)} == {"ece", "brier"}
    scores[3] = np.nan
    found = measures(labels, scores, scores > 4, np.full(8, 0.5), rows)
    unknown = {"ap", "auc", "tpr_at_1", "tpr_at_5"}
    assert {name for name in found if np.isnan(found[name].value)} == unknown


def test_measures_of_different_images():
    rows = np.zeros((3, 4), np.int64)
    with pytest.raises(ValueError, match="of 4, 4, 4 and 5 images"):
        measures(np.arange(4) % 2, np.zeros(4), np.zeros(4, bool), np.zeros(5), rows)
    with pytest.raises(ValueError, match="map logits"):
        measures(np.arange(4) % 2, np.zeros(4), np.zeros(4, bool), np.full(4, 1.5), rows)
