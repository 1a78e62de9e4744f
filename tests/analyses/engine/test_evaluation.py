"""Evaluators against literal definitions, on random logits."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from tests.helpers import tiny

from tff.analyses.engine.evaluation import Evaluator, Scores, evaluators, summarize_generators
from tff.analyses.engine.protocol import Protocol
from tff.analyses.sensitivity import RULES, accuracies_by_threshold
from tff.statistics.bootstrap import Estimate


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("other", "seen", "third"), images=8)


def wide(seed, n=48):
    """Logits of which none is clear."""
    return np.random.default_rng(seed).normal(size=n) * 2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def best(labels, p):
    """The threshold of the largest sqrt(TPR (1 - FPR)), by trying every probability.

    An image is called generated at p >= it along the curve: that is where the curve is cut.
    """
    tried = []
    for cut in p:
        called = p >= cut
        true, false = called[labels == 1].mean(), called[labels == 0].mean()
        tried.append((np.sqrt(true * (1 - false)), cut))
    largest = max(value for value, _ in tried)
    return {cut for value, cut in tried if np.isclose(value, largest)}


def of_test(subject, split="test"):
    images = getattr(subject.images, split)
    return images.manifest["label"].to_numpy(), images.manifest["generator"].to_numpy()


def test_one_judge_a_generator_the_seen_one_first(root):
    subject = tiny.subject(root)
    found = list(evaluators(subject))
    assert [evaluator.generator for evaluator in found] == ["seen", "other", "third"]
    assert [evaluator.seen for evaluator in found] == [True, False, False]
    labels, generators = of_test(subject)
    for evaluator in found:
        assert evaluator.rows.tolist() == [
            i for i in range(48) if generators[i] == evaluator.generator
        ]
        np.testing.assert_array_equal(evaluator.labels, labels[evaluator.rows])
        np.testing.assert_array_equal(evaluator.logits, subject.evaluate().logits)


@pytest.mark.parametrize("rule", [None, *RULES])
def test_thresholds_are_their_definitions(rule, root):
    subject = tiny.subject(root, scoring=Protocol(threshold="oracle"))
    logits = wide(1)
    for name, at in subject.generators():
        evaluator = Evaluator(subject, name, at, logits)
        found = evaluator.threshold(rule)
        if rule == "half":
            assert found == 0.5
        elif rule == "validation":
            labels, _ = of_test(subject, "discovery")
            rows = [int(i) for i in np.flatnonzero(of_test(subject)[1] == "seen")]
            # Of the detector itself on validation images, whatever is judged.
            p = sigmoid(subject.evaluate().logits[rows])
            assert min(abs(found - cut) for cut in best(labels, p)) < 1e-6
        else:
            assert (
                min(abs(found - cut) for cut in best(evaluator.labels, sigmoid(logits[at]))) < 1e-12
            )
    assert evaluator.columns() == {
        "threshold": evaluator.threshold("oracle"), "threshold_rule": "oracle", "scores": "logits",
        "images": 16, "groups": None, "resampled": "image",
    }  # fmt: skip


@pytest.mark.parametrize("scores", ["logits", "probabilities"])
@pytest.mark.parametrize("rule", RULES)
def test_measures_equal_a_loop_over_resamples(rule, scores, root):
    subject = tiny.subject(root, draws=20, scoring=Protocol(threshold=rule, scores=scores))
    undisturbed, logits = wide(2), wide(3)
    logits[::5] += 90  # saturated: ties of probabilities
    name, at = next(subject.generators())
    evaluator = Evaluator(subject, name, at, undisturbed)
    found = evaluator.measure(Scores.of(subject, logits))
    p = sigmoid(logits[at])
    shown = p.astype(np.float32) if scores == "probabilities" else logits[at]
    called = p > evaluator.threshold()
    everything = np.arange(len(at))
    for i, rows in enumerate([everything, *evaluator.resamples]):
        labels = evaluator.labels[rows]
        expected = {
            "ap": average_precision_score(labels, shown[rows]),
            "real_accuracy": np.mean(~called[rows][labels == 0]),
            "fake_accuracy": np.mean(called[rows][labels == 1]),
            "brier": np.mean((p[rows] - labels) ** 2),
        }
        for measure, value in expected.items():
            own = found[measure].draws[i - 1] if i else found[measure].value
            assert own == pytest.approx(value, abs=1e-6)
    # Another rule than that of the protocol.
    other = evaluator.measure(Scores.of(subject, logits), "half")
    right = np.mean(p[evaluator.labels == 1] > 0.5)
    assert other["fake_accuracy"].value == pytest.approx(right)


def test_all_scores_of_a_generator_meet_the_same_resamples(root):
    one, again, other = (tiny.subject(root, seed=seed) for seed in (0, 0, 1))
    found = {}
    for subject in (one, again, other):
        for evaluator in evaluators(subject):
            rows = evaluator.resamples
            assert rows is evaluator.resamples
            assert rows.shape == (50, 16)
            assert (np.sort(evaluator.labels[rows]) == np.sort(evaluator.labels)).all()
            found.setdefault(evaluator.generator, []).append(rows)
            equal = (
                evaluator.measure(Scores.of(subject, wide(4))),
                evaluator.measure(Scores.of(subject, wide(4))),
            )
            difference = equal[0]["ap"] - equal[1]["ap"]
            assert (difference.draws == 0).all()
    for first, same, different in found.values():
        np.testing.assert_array_equal(first, same)
        assert (first != different).any()


def test_accuracies_at_each_threshold(root):
    subject = tiny.subject(root)
    name, at = next(subject.generators())
    evaluator, logits = Evaluator(subject, name, at, wide(5)), wide(6)
    rows = accuracies_by_threshold(evaluator, Scores.of(subject, logits))
    assert [row["threshold_rule"] for row in rows] == ["half", "validation", "oracle"]
    p, z = sigmoid(logits[at]), 1.959963984540054
    for row in rows:
        assert row["threshold"] == evaluator.threshold(row["threshold_rule"])
        for kind, label in (("real_accuracy", 0), ("fake_accuracy", 1)):
            mine = p[evaluator.labels == label]
            n = len(mine)
            share = sum((x > row["threshold"]) == bool(label) for x in mine) / n
            middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
            width = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
            assert row[kind] == share
            assert row[f"{kind}_low"] == pytest.approx(middle - width, abs=1e-9)
            assert row[f"{kind}_high"] == pytest.approx(middle + width, abs=1e-9)


def estimate(seed):
    random = np.random.default_rng(seed)
    return Estimate(float(random.random()), random.random(9))


def test_over_generators(root):
    subject = tiny.subject(root)
    found = {name: estimate(i) for i, name in enumerate(("seen", "other", "third"))}
    for smallest, extreme in ((True, min), (False, max)):
        over = summarize_generators(subject, found, smallest)
        assert list(over) == ["seen", "unseen", "unseen_worst"]
        assert over["seen"].value == found["seen"].value
        two = found["other"], found["third"]
        assert over["unseen"].value == pytest.approx((two[0].value + two[1].value) / 2)
        assert over["unseen_worst"].value == extreme(e.value for e in two)
        for i in range(9):
            assert over["seen"].draws[i] == found["seen"].draws[i]
            assert over["unseen"].draws[i] == pytest.approx(sum(e.draws[i] for e in two) / 2)
            assert over["unseen_worst"].draws[i] == extreme(e.draws[i] for e in two)


def test_over_generators_without_one_kind(root):
    subject = tiny.subject(root)
    assert list(summarize_generators(subject, {"seen": estimate(0)})) == ["seen"]
    assert list(summarize_generators(subject, {"new": estimate(0)})) == ["unseen", "unseen_worst"]
    assert summarize_generators(subject, {}) == {}
