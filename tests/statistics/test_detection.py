"""Detection measures, against the released code's numbers, scikit-learn's and definitions."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    recall_score,
    roc_auc_score,
    roc_curve,
)
from tests.helpers.bootstrap_by_hand import Known, average, wilson
from torchmetrics.functional.classification import binary_calibration_error

from tff.statistics.bootstrap import Estimate, draw_resamples
from tff.statistics.detection import (
    MEASURES,
    Accuracy,
    AveragePrecision,
    average_precision,
    best_threshold,
    calibrated_errors,
    calibration_terms,
    count_above_thresholds,
    judge_calibration,
    least_real_images,
    measures,
    sigmoid,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "statistics.npz")
CALIBRATIONS = json.loads(str(GOLDEN["meta"]))["calibration"]
# Few different values, so that ties abound.
PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=30)


def columns(pairs) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = zip(*pairs, strict=True)
    return np.array(labels), np.array(scores, float)


def values(labels, p) -> dict[str, float]:
    """All measures, p being scores and probabilities, without a resample."""
    rows = np.zeros((0, len(labels)), np.int64)
    return {n: e.value for n, e in measures(labels, p, p > 0.5, p, rows).items()}


@pytest.mark.parametrize("i", range(4))
def test_released_code(i):
    labels, p = GOLDEN[f"cal{i}_y_true"], GOLDEN[f"cal{i}_y_prob"]
    expected = CALIBRATIONS[i]
    cut = best_threshold(labels, p)
    assert cut == pytest.approx(expected["threshold"], abs=1e-12)
    for name, at in (("calibrated", cut), ("at_half", 0.5)):
        rows = draw_resamples(labels, 3, 0)
        found = {n: e.value for n, e in measures(labels, p, p > at, p, rows).items()}
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


def test_intervals_are_those_of_every_resample(rng):
    labels = rng.integers(0, 2, 60)
    scores = (labels + rng.normal(0, 1, 60)).round(1)
    called, resamples = scores > 0.4, draw_resamples(labels, 200, 7)
    found = measures(labels, scores, called, sigmoid(scores), resamples)
    n = {label: int((labels == label).sum()) for label in (0, 1)}
    statistics = {
        "ap": (average_precision_score, scores, Known.of_fraction, min(n.values())),
        "real_accuracy": (recall, called, Known.of_share, n[0]),
        "fake_accuracy": (lambda y, c: recall(y, c, 1), called, Known.of_share, n[1]),
        "brier": (brier_score_loss, sigmoid(scores), Known.of_fraction, 60),
    }
    expected = {}
    for name, (statistic, values, interval, units) in statistics.items():
        draws = [statistic(labels[row], values[row]) for row in resamples]
        expected[name] = interval(statistic(labels, values), draws, units)
    expected["balanced_accuracy"] = average([expected["real_accuracy"], expected["fake_accuracy"]])
    for name, known in expected.items():
        assert [*found[name].columns(name).values()] == pytest.approx(
            [known.value, *known.interval], abs=1e-9
        )


def recall(labels, called, label=0):
    return recall_score(labels, called, pos_label=label)


def test_images_of_a_group_count_once(rng):
    """Intervals of copies are those of the images, up to the chance of the draws."""
    labels = np.repeat([0, 1], 40)
    scores = labels + rng.normal(size=80)
    p, of = sigmoid(scores), np.tile(np.arange(80), 5)
    single = measures(labels, scores, scores > 0, p, draw_resamples(labels, 800, 0))
    rows = draw_resamples(labels[of], 800, 1, of)
    copies = measures(labels[of], scores[of], scores[of] > 0, p[of], rows, of)
    for name in ("ap", "auc", "real_accuracy", "balanced_accuracy", "brier"):
        assert copies[name].value == pytest.approx(single[name].value)
        assert [copies[name].low, copies[name].high] == pytest.approx(
            [single[name].low, single[name].high], abs=0.03
        ), name
    assert np.isnan(copies["tpr_at_5"].value)  # 40 photographs, however many crops of them


@pytest.mark.parametrize(("label", "missing"), [(0, "fake_accuracy"), (1, "real_accuracy")])
def test_one_kind_of_image(label, missing):
    labels, scores = np.full(5, label), np.arange(5.0)
    called, resamples = np.full(5, label == 1), draw_resamples(labels, 10, 0)
    found = measures(labels, scores, called, sigmoid(scores), resamples)
    assert np.isnan([*found[missing].columns("x").values()]).all()
    assert np.isnan(found["ap"].value) == (label == 0)
    other = found["real_accuracy" if label == 0 else "fake_accuracy"]
    low, high = wilson(1.0, 5)
    assert [*other.columns("x").values()] == pytest.approx([1, low, high])


def test_sigmoid_does_not_overflow():
    logits = np.array([-1e4, -30, -1, 0, 1, 30, 1e4])
    with np.errstate(over="raise", invalid="raise"):
        p = sigmoid(logits)
    np.testing.assert_allclose(p[1:-1], 1 / (1 + np.exp(-logits[1:-1])), rtol=1e-14)
    assert p[0] == 0
    assert p[-1] == 1


def caught(labels: np.ndarray, scores: np.ndarray, rate: float) -> float:
    """The threshold admits k real images of n, the largest k with (k + 1) / (n + 1) <= rate."""
    n = int((labels == 0).sum())
    allowed = [k for k in range(n + 1) if (k + 1) / (n + 1) <= rate + 1e-12]
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return true[false <= allowed[-1] / n + 1e-12].max() if allowed else 0


def one_by_one(labels, scores, called, p) -> dict[str, float]:
    error = binary_calibration_error(torch.tensor(p), torch.tensor(labels), n_bins=15)
    return {
        "ap": average_precision_score(labels, scores),
        "auc": roc_auc_score(labels, scores),
        "real_accuracy": recall_score(labels, called, pos_label=0),
        "fake_accuracy": recall_score(labels, called, pos_label=1),
        "balanced_accuracy": balanced_accuracy_score(labels, called),
        "tpr_at_1": caught(labels, scores, 0.01) if (labels == 0).sum() >= 299 else np.nan,
        "tpr_at_5": caught(labels, scores, 0.05) if (labels == 0).sum() >= 59 else np.nan,
        "ece": error.item(),
        "brier": brier_score_loss(labels, p),
    }


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize(("real", "fake"), [(1, 1), (2, 7), (59, 120), (310, 50)])
def test_measures_of_every_resample(rng, decimals, real, fake):
    labels = rng.permutation(np.repeat([0, 1], (real, fake)))
    scores = (labels + rng.normal(0, 1, real + fake)).round(decimals)
    called, p, rows = scores > 0.4, sigmoid(scores), draw_resamples(labels, 25, 7)
    found = measures(labels, scores, called, p, rows)
    assert tuple(found) == MEASURES
    for name, value in one_by_one(labels, scores, called, p).items():
        assert found[name].value == pytest.approx(value, abs=1e-12, nan_ok=True), name
    for i, row in enumerate(rows):
        expected = one_by_one(labels[row], scores[row], called[row], p[row])
        for name, value in expected.items():
            assert found[name].draws[i] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-2, 2)), max_size=12), st.integers(0, 3))
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
        "tpr_at_1": False,  # needs more images
        "tpr_at_5": False,
        "ece": real or fake,
        "brier": real or fake,
    }
    for name, estimate in found.items():
        defined = needed.get(name, real and fake)
        assert np.isfinite(estimate.value) == defined, name
        assert estimate.draws.shape == (draws,)
        assert (np.isfinite(estimate.draws) == defined).all(), name
        assert np.isfinite(estimate.low) == np.isfinite(estimate.high)
        known = defined and (draws > 0 or "accuracy" in name)  # Wilson's needs no draws
        assert np.isfinite(estimate.low) == known, name
        assert not known or 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@pytest.mark.parametrize("chunk", [1, 100, 10**7])
def test_measures_do_not_depend_on_the_chunk(rng, chunk, monkeypatch):
    labels, scores = rng.integers(0, 2, 40), rng.normal(size=40)
    arguments = labels, scores, scores > 0, sigmoid(scores), draw_resamples(labels, 31, 0)
    expected = measures(*arguments)
    monkeypatch.setattr("tff.statistics.detection._CHUNK", chunk)
    for name, estimate in measures(*arguments).items():
        assert estimate.draws == pytest.approx(expected[name].draws, abs=1e-12, nan_ok=True)


def test_what_is_unknown_spoils_only_what_needs_it():
    labels, scores = np.arange(8) % 2, np.arange(8.0)
    rows = draw_resamples(labels, 5, 0)
    p = sigmoid(scores)
    p[2] = np.nan
    found = measures(labels, scores, scores > 4, p, rows)
    few = {"tpr_at_1", "tpr_at_5"}
    assert {name for name in found if np.isnan(found[name].value)} == {"ece", "brier"} | few
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
    with pytest.raises(ValueError, match="map logits"):
        calibration_terms(np.array([0, 1]), np.array([0.5, np.inf]))


@given(PAIRS)
def test_average_precision_with_ties(pairs):
    labels, scores = columns(pairs)
    found = average_precision(labels, scores)
    if not labels.any():
        assert np.isnan(found)
        return
    assert found == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    area, reached = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = scores >= threshold
        recall = labels[called].sum() / labels.sum()
        area += (recall - reached) * labels[called].mean()
        reached = recall
    assert found == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize(("label", "expected"), [(1, 1.0), (0, np.nan)])
@pytest.mark.parametrize("count", [1, 6])
def test_average_precision_of_one_class(label, expected, count):
    found = average_precision(np.full(count, label), np.arange(count, dtype=float))
    np.testing.assert_equal(found, expected)


@given(PAIRS, st.sampled_from([0, 0.01, 0.05, 0.1, 1 / 3, 0.5, 0.9, 1]))
def test_thresholds_with_ties(pairs, rate):
    labels, scores = columns(pairs)
    counts = count_above_thresholds(labels, scores)
    found, area = counts.true_positive_rate_at(rate), counts.roc_auc()
    if 0 < labels.sum() < len(labels):
        assert found == caught(labels, scores, rate)
        assert area == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    else:
        assert np.isnan([found, area]).all()


def test_many_sets_at_once(rng):
    labels = rng.integers(0, 2, (4, 5, 41))
    labels[..., 0], labels[..., 1] = 0, 1
    scores = (rng.normal(size=(4, 5, 41)) + labels).round(1)
    counts = count_above_thresholds(labels, scores)
    rates, areas = counts.true_positive_rate_at(0.1), counts.roc_auc()
    precisions = average_precision(labels, scores)
    assert rates.shape == areas.shape == precisions.shape == (4, 5)
    for at in np.ndindex(4, 5):
        assert rates[at] == caught(labels[at], scores[at], 0.1)
        assert areas[at] == pytest.approx(roc_auc_score(labels[at], scores[at]), abs=1e-12)
        expected = average_precision_score(labels[at], scores[at])
        assert precisions[at] == pytest.approx(expected, abs=1e-12)


@given(PAIRS, st.integers(0, 2**32))
def test_weights_are_copies(pairs, seed):
    labels, scores = columns(pairs)
    weights = np.random.default_rng(seed).integers(0, 3, (5, len(labels)))
    found = count_above_thresholds(labels, scores, weights)
    areas, precisions = found.roc_auc(), found.average_precision()
    rates = found.true_positive_rate_at(0.2)
    for i, times in enumerate(weights):
        y, s = np.repeat(labels, times), np.repeat(scores, times)
        if 0 < y.sum() < len(y):
            assert areas[i] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
            assert precisions[i] == pytest.approx(average_precision_score(y, s), abs=1e-12)
            assert rates[i] == caught(y, s, 0.2)
        else:
            assert np.isnan([areas[i], rates[i]]).all()
            assert np.isnan(precisions[i]) == (not y.any())


def test_nothing_is_caught_before_the_first_false_alarm():
    counts = count_above_thresholds(np.array([0, 1, 1, 0]), np.array([3.0, 2, 1, 0]))
    assert counts.true_positive_rate_at(0.66) == 0
    assert counts.true_positive_rate_at(2 / 3) == 1


def test_wide_scores():
    scores = np.array([-np.inf, np.inf, 1e308, 700.0])
    counts = count_above_thresholds(np.array([0, 1, 0, 1]), scores)
    assert counts.roc_auc() == 0.75
    assert counts.true_positive_rate_at(1 / 3) == 0.5
    assert counts.true_positive_rate_at(0.3) == 0


def test_missing_scores_make_only_their_set_nan():
    labels, scores = np.array([0, 1, 0, 1]), np.array([[0, np.nan, 1, 2], [0, 3, 1, 2.0]])
    counts = count_above_thresholds(np.broadcast_to(labels, (2, 4)), scores)
    for found in (counts.roc_auc(), counts.true_positive_rate_at(0.5), counts.average_precision()):
        assert np.isnan(found).tolist() == [True, False]


def test_sets_without_images():
    counts = count_above_thresholds(np.zeros((3, 0), np.int64), np.zeros((3, 0)))
    for found in (counts.roc_auc(), counts.true_positive_rate_at(0.1), counts.average_precision()):
        assert np.isnan(found).tolist() == [True] * 3
    empty = count_above_thresholds(np.zeros((0, 3), np.int64), np.zeros((0, 3)))
    assert empty.roc_auc().shape == (0,)


def expected_calibration_error(labels: list[int], p: list[float], bins: int = 15) -> float:
    """By definition, one bin after the other."""
    edges = np.linspace(0, 1, bins + 1).tolist()
    error = 0.0
    for i in range(bins):
        last = i == bins - 1
        mine = [k for k in range(len(p)) if edges[i] <= p[k] and (p[k] < edges[i + 1] or last)]
        if mine:
            confidence = sum(p[k] for k in mine) / len(mine)
            accuracy = sum(labels[k] for k in mine) / len(mine)
            error += len(mine) / len(p) * abs(confidence - accuracy)
    return error


PROBABILITIES = st.floats(0, 1) | st.integers(0, 15).map(lambda i: i / 15)


@given(st.lists(st.tuples(st.integers(0, 1), PROBABILITIES), min_size=1, max_size=40))
def test_calibration_by_definition(pairs):
    labels, p = columns(pairs)
    found = values(labels, p)
    assert found["ece"] == pytest.approx(expected_calibration_error(labels, p), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, p), abs=1e-12)


def test_one_and_nearly_one_share_a_bin():
    gaps, _ = calibration_terms(np.array([0, 1, 1]), np.array([0, 0.99, 1.0]))
    assert (gaps != 0).any(0).nonzero()[0].tolist() == [14]
    assert values(np.array([1, 0]), np.array([0.96, 1.0]))["ece"] == pytest.approx(0.48)


def test_perfect_and_worst_calibration():
    labels = np.array([0, 1, 1])
    perfect, worst = values(labels, labels.astype(float)), values(labels, 1.0 - labels)
    assert perfect["ece"] == perfect["brier"] == 0
    assert worst["ece"] == worst["brier"] == 1


def test_calibrated_probabilities():
    generator = np.random.default_rng(0)
    p = generator.random(200_000)
    labels = (generator.random(200_000) < p).astype(int)
    found = values(labels, p)
    assert found["ece"] < 0.01
    assert found["brier"] == pytest.approx(1 / 6, abs=0.003)
    assert values(labels, p**2)["ece"] > 0.1


def test_calibrated_errors_are_those_of_drawn_labels(rng):
    p = rng.random(50).round(1)
    found = calibrated_errors(p, 4000, seed=0)
    assert found.shape == (4000,)
    literal = [values((rng.random(50) < p).astype(int), p)["ece"] for _ in range(400)]
    assert found.mean() == pytest.approx(np.mean(literal), rel=0.05)
    assert np.quantile(found, 0.95) == pytest.approx(np.quantile(literal, 0.95), rel=0.1)
    np.testing.assert_array_equal(found, calibrated_errors(p, 4000, seed=0))


@pytest.mark.parametrize("p", [[], [0.5, np.nan]])
def test_no_calibrated_error(p):
    assert np.isnan(calibrated_errors(np.array(p), 7, 0)).all()


def test_certain_and_right_is_calibrated():
    assert (calibrated_errors(np.array([0.0, 1.0, 1.0]), 5, 0) == 0).all()


def test_the_interval_of_a_calibration_error_begins_below_the_chance_of_its_bins(rng):
    null, draws = rng.random(200) / 5, 0.1 + rng.random(30) / 20
    found = judge_calibration(Estimate(0.12, draws), null)
    assert found.low == pytest.approx(max(0, 0.12 - np.quantile(null, 0.95)))
    assert found.high == pytest.approx(0.12 + 1.959964 * draws.std())
    assert judge_calibration(Estimate(0.05, draws), null + 0.1).low == 0


def test_a_calibrated_detector_is_seldom_called_uncalibrated():
    generator, held = np.random.default_rng(0), []
    for seed in range(200):
        p = sigmoid(3 * generator.normal(size=60))
        labels = (generator.random(60) < p).astype(np.int64)
        rows, none = draw_resamples(labels, 20, seed), np.full(60, np.nan)
        ece = measures(labels, none, p > 0.5, p, rows)["ece"]
        held.append(judge_calibration(ece, calibrated_errors(p, 300, seed)).low == 0)
    assert 0.88 <= np.mean(held) <= 0.99


def test_thresholds_keep_their_rate_of_false_alarms_on_new_images():
    """True rate of the threshold, of real images that are uniform; plain counts have 1.33 %."""
    generator, rates = np.random.default_rng(0), []
    labels = np.repeat([0, 1], [300, 10_001])
    for _ in range(400):
        scores = np.concatenate([generator.random(300), np.linspace(0, 1, 10_001)])
        caught = count_above_thresholds(labels, scores).true_positive_rate_at(0.01)
        rates.append(caught)  # generated images lie evenly too
    assert np.mean(rates) == pytest.approx(0.01, abs=0.0012)
    assert [least_real_images(rate) for rate in (0.01, 0.05)] == [299, 59]


def test_metric_takes_wide_logits_in_batches():
    generator = torch.manual_seed(0)
    labels = torch.randint(0, 2, (101,), generator=generator)
    logits = 40 * torch.randn(101, generator=generator) + 15 * labels
    metric = AveragePrecision()
    for part in (slice(0, 64), slice(64, 65), slice(65, 101)):
        metric.update(logits[part], labels[part])
    assert metric.compute() == np.float32(average_precision_score(labels, logits.double()))
    assert metric.compute() != np.float32(average_precision_score(labels, logits.sigmoid()))


def test_metric_on_one_class_and_after_reset():
    metric = AveragePrecision()
    metric.update(torch.randn(3), torch.zeros(3, dtype=torch.int64))
    assert metric.compute().isnan()
    metric.reset()
    metric.update(torch.randn(1), torch.ones(1, dtype=torch.int64))
    assert metric.compute() == 1


def test_metric_that_needs_both_kinds():
    metric = AveragePrecision(needs_real=True)
    metric.update(torch.randn(3), torch.ones(3, dtype=torch.int64))
    assert metric.compute().isnan()
    metric.update(torch.tensor([-9.0]), torch.zeros(1, dtype=torch.int64))
    assert metric.compute() == 1


def test_accuracies_are_of_logits_and_of_the_images_that_there_are():
    """Logits that all lie within [0, 1] are logits all the same."""
    logits, labels = torch.tensor([0.2, 0.9, -0.1]), torch.tensor([1, 0, 0])
    every, real, fake = Accuracy(), Accuracy(0), Accuracy(1)
    for metric in (every, real, fake):
        metric.update(logits[:1], labels[:1])
    assert (every.compute(), fake.compute()) == (1, 1)
    assert real.compute().isnan()
    for metric in (every, real, fake):
        metric.update(logits[1:], labels[1:])
    assert [float(m.compute()) for m in (every, real, fake)] == pytest.approx([2 / 3, 1 / 2, 1])


def test_metric_without_an_image():
    with warnings.catch_warnings(action="error"):
        assert AveragePrecision().compute().isnan()
