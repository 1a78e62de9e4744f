"""Calibration and accuracies, against the released code's numbers and scikit-learn's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, recall_score

from tff.statistics.bootstrap import resamples
from tff.statistics.detection import detection, sigmoid
from tff.statistics.threshold import threshold

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "statistics.npz")
CALIBRATIONS = json.loads(str(GOLDEN["meta"]))["calibration"]


@pytest.mark.parametrize("i", range(4))
def test_released_code(i):
    labels, p = GOLDEN[f"cal{i}_y_true"], GOLDEN[f"cal{i}_y_prob"]
    expected = CALIBRATIONS[i]
    cut = threshold("oracle", labels, p)
    assert cut == pytest.approx(expected["threshold"], abs=1e-12)
    for name, at in (("calibrated", cut), ("at_half", threshold("half", labels, p))):
        found = detection(labels, p, p > at, resamples(labels, 3, 0))
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
    assert threshold("oracle", labels, p) == candidates[int(np.argmax(means))]


def test_unknown_rule():
    with pytest.raises(ValueError, match="best: unknown"):
        threshold("best", np.array([0, 1]), np.array([0.1, 0.9]))


def test_detection_against_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 60)
    scores = (labels + generator.normal(0, 1, 60)).round(1)
    called, rows = scores > 0.4, resamples(labels, 200, 7)
    found = detection(labels, scores, called, rows)
    statistics = {
        "ap": lambda at: average_precision_score(labels[at], scores[at]),
        "real_accuracy": lambda at: recall_score(labels[at], called[at], pos_label=0),
        "fake_accuracy": lambda at: recall_score(labels[at], called[at], pos_label=1),
    }
    assert set(found) == {f"{s}{end}" for s in statistics for end in ("", "_low", "_high")}
    for name, statistic in statistics.items():
        assert found[name] == pytest.approx(statistic(np.arange(60)), abs=1e-12)
        low, high = np.percentile([statistic(row) for row in rows], [2.5, 97.5])
        assert found[f"{name}_low"] == pytest.approx(low, abs=1e-12)
        assert found[f"{name}_high"] == pytest.approx(high, abs=1e-12)
        assert low <= found[name] <= high


@pytest.mark.parametrize(("label", "missing"), [(0, "fake_accuracy"), (1, "real_accuracy")])
def test_one_kind_of_image(label, missing):
    labels = np.full(5, label)
    found = detection(labels, np.arange(5.0), np.full(5, label == 1), resamples(labels, 10, 0))
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
