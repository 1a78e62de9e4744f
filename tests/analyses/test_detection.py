"""The table of `Detection`, against scikit-learn and literal counts."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve
from tests.helpers import fake_subject, tiny
from tests.helpers.bootstrap_by_hand import ends

from tff.analyses.detection import Detection
from tff.analyses.engine.protocol import Protocol
from tff.statistics.bootstrap import draw_resamples
from tff.statistics.detection import sigmoid


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    names = ("other", "seen", "third")
    return tiny.tree(tmp_path_factory.mktemp("images"), names, images=20, size=16)


@pytest.fixture(scope="module")
def subject(root):
    return fake_subject.subject(root)


@pytest.fixture(scope="module")
def table(subject):
    return Detection()(subject).tables["detection"].set_index("generator")


def caught(labels, scores, rate):
    """The largest share caught by any threshold with so few false alarms."""
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return true[false <= rate].max()


def calibration_error(labels, p):
    """Over 15 bins of equal width: how far the mean probability is from the share of generated."""
    bins = np.minimum((p * 15).astype(int), 14)
    return sum(
        np.mean(bins == b) * abs(p[bins == b].mean() - labels[bins == b].mean())
        for b in np.unique(bins)
    )


MEASURES = {
    "ap": average_precision_score,
    "auc": roc_auc_score,
    "real_accuracy": lambda y, z: np.mean(z[y == 0] <= 0),
    "fake_accuracy": lambda y, z: np.mean(z[y == 1] > 0),
    "balanced_accuracy": lambda y, z: (np.mean(z[y == 0] <= 0) + np.mean(z[y == 1] > 0)) / 2,
    "tpr_at_1": lambda y, z: caught(y, z, 0.01),
    "tpr_at_5": lambda y, z: caught(y, z, 0.05),
    "ece": lambda y, z: calibration_error(y, sigmoid(z)),
    "brier": lambda y, z: brier_score_loss(y, sigmoid(z)),
}


def literal(subject, at, measure):
    """Of the images, and of each resample."""
    labels, logits = subject.labels[at], subject.evaluate().logits[at]
    rows = draw_resamples(labels, subject.draws, subject.seed)
    return measure(labels, logits), np.array([measure(labels[r], logits[r]) for r in rows])


def over_all(over, several):
    """Of the images, and of each resample."""
    draws = [over(both) for both in zip(*(draws for _, draws in several), strict=True)]
    return over([value for value, _ in several]), np.array(draws)


@pytest.mark.parametrize("name", MEASURES)
def test_each_generator_the_mean_and_the_worst(subject, table, name):
    found = {g: literal(subject, at, MEASURES[name]) for g, at in subject.generators()}
    unseen = [found["other"], found["third"]]
    least = max if name in ("ece", "brier") else min  # of errors the largest is the worst
    found["the seen generator"] = found["seen"]
    for words, over in (("generators never seen (mean)", np.mean), ("the worst of them", least)):
        found[words] = over_all(over, unseen)
    for words, over in (("all generators (mean)", np.mean), ("the worst of all", least)):
        found[words] = over_all(over, [found["seen"], *unseen])
    assert list(table.index) == [
        "seen", "other", "third", "the seen generator", "generators never seen (mean)",
        "the worst of them", "all generators (mean)", "the worst of all",
    ]  # fmt: skip
    for generator, (value, draws) in found.items():
        row = table.loc[generator]
        assert row[name] == pytest.approx(value)
        interval = row[[f"{name}_low", f"{name}_high"]].astype(float)
        np.testing.assert_allclose(interval, ends(value, draws), atol=1e-12)


def test_findings_and_scalars_are_those_of_the_table(subject, table):
    result = Detection()(subject)
    assert result.scalars["unseen_worst_ece"] == table.loc["the worst of them", "ece"]
    assert result.scalars["seen_ap"] == table.loc["seen", "ap"]
    worst = table.loc["the worst of them"]
    assert result.findings[2] == (
        f"On the worst of them: AP {worst['ap']:.3f} ({worst['ap_low']:.3f} to "
        f"{worst['ap_high']:.3f}); at 1 % false alarms it catches {100 * worst['tpr_at_1']:.0f} % "
        f"({100 * worst['tpr_at_1_low']:.0f} to {100 * worst['tpr_at_1_high']:.0f})."
    )
    assert list(table["seen"]) == [True, False, False, True] + [False] * 4


def test_the_figure_shows_the_generators_and_no_means(subject, table):
    ax = Detection()(subject).figures["detection"].axes[0]
    rows = [text.get_text() for text in ax.get_yticklabels()]
    assert rows == ["seen (seen)", "other", "third"]
    line = next(x for x in ax.lines if x.get_label() == "caught at 5 % false alarms")
    np.testing.assert_allclose(line.get_xdata(), table["tpr_at_5"].head(3))
    whiskers = [[s[0, 0], s[1, 0]] for c in ax.collections for s in c.get_segments()]
    assert table.loc["third", ["ap_low", "ap_high"]].tolist() in whiskers


def test_single_seen_generator_has_no_mean(tmp_path):
    root = tiny.tree(tmp_path, ("seen",), images=6, size=16)
    table = Detection()(fake_subject.subject(root)).tables["detection"]
    assert list(table["generator"]) == ["seen", "the seen generator"]


def test_means_and_worst_are_not_repeated(tmp_path, monkeypatch):
    subject = fake_subject.subject(tiny.tree(tmp_path, ("one", "seen"), images=6, size=16))
    for seen, rows in (
        ({"one", "seen"}, ["the seen generator", "the worst of all"]),
        (set(), ["generators never seen (mean)", "the worst of them"]),
    ):
        monkeypatch.setitem(vars(subject), "seen", seen)
        table = Detection()(subject).tables["detection"]
        assert list(table["generator"])[2:] == rows


def test_saturated_probabilities_and_oracle_threshold_give_a_warning(root):
    protocol = Protocol(threshold="oracle", scores="probabilities")
    subject = fake_subject.subject(root, {"scoring": protocol}, signal={"": 400.0})
    result = Detection()(subject)
    assert any("optimistic" in warning for warning in result.warnings)
    for generator, at in subject.generators():
        row = result.tables["detection"].set_index("generator").loc[generator]
        p = sigmoid(subject.evaluate().logits[at]).astype("float32")
        assert row["ap"] == pytest.approx(average_precision_score(subject.labels[at], p))
        assert row["threshold_rule"] == "oracle"
        assert row["scores"] == "probabilities"
