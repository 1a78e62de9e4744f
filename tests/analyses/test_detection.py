"""The table of `Detection`, against scikit-learn and literal counts."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from tests.helpers import fake_subject, tiny
from tests.helpers.bootstrap_by_hand import Known, average, worst

from tff.analyses.detection import Detection
from tff.analyses.engine.analysis import run
from tff.analyses.engine.evaluation import evaluators
from tff.analyses.engine.protocol import Protocol
from tff.statistics.bootstrap import draw_resamples
from tff.statistics.detection import calibrated_errors, sigmoid


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
    "brier": lambda y, z: brier_score_loss(y, sigmoid(z)),
}


def literal(subject, at, name):
    """Of the images, and of each resample, with its interval."""
    measure, labels, logits = MEASURES[name], subject.labels[at], subject.evaluate().logits[at]
    rows = draw_resamples(labels, subject.draws, subject.seed)
    interval = Known.of_share if "accuracy" in name else Known.of_fraction
    n_images = 40 if name == "brier" else 20
    draws = [measure(labels[r], logits[r]) for r in rows]
    return interval(measure(labels, logits), draws, n_images)


GROUPS = [
    "seen", "other", "third", "the seen generator", "generators never seen (mean)",
    "the worst of them", "all generators (mean)", "the worst of all",
]  # fmt: skip


def over_all(found, smallest=True):
    """Rows of the table from those of the generators."""
    unseen = [found["other"], found["third"]]
    everyone = [found["seen"], *unseen]
    rows = [
        found["seen"], *unseen, found["seen"], average(unseen), worst(unseen, smallest),
        average(everyone), worst(everyone, smallest),
    ]  # fmt: skip
    return dict(zip(GROUPS, rows, strict=True))


@pytest.mark.parametrize("name", MEASURES)
def test_each_generator_the_mean_and_the_worst(subject, table, name):
    found = {g: literal(subject, at, name) for g, at in subject.generators()}
    assert list(table.index) == GROUPS
    # Of errors the largest is the worst.
    for generator, known in over_all(found, smallest=name != "brier").items():
        row = table.loc[generator]
        assert row[name] == pytest.approx(known.value)
        interval = row[[f"{name}_low", f"{name}_high"]].astype(float)
        np.testing.assert_allclose(interval, known.interval, atol=1e-9)


def test_balanced_accuracy_is_the_mean_of_two_shares(subject, table):
    for generator, at in subject.generators():
        both = [literal(subject, at, f"{kind}_accuracy") for kind in ("real", "fake")]
        row = table.loc[generator]
        columns = ["balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high"]
        expected = [average(both).value, *average(both).interval]
        np.testing.assert_allclose(row[columns].astype(float), expected, atol=1e-9)


def test_calibration_errors_stand_beside_those_of_calibrated_detectors(subject, table):
    """Means and worst of both are taken draw by draw."""
    errors, nulls = {}, {}
    for number, (generator, at) in enumerate(subject.generators()):
        labels, p = subject.labels[at], sigmoid(subject.evaluate().logits[at])
        rows = draw_resamples(labels, subject.draws, subject.seed)
        every = [np.arange(len(at)), *rows]
        errors[generator] = np.array([calibration_error(labels[r], p[r]) for r in every])
        nulls[generator] = calibrated_errors(p, subject.draws, subject.seed + 1000 * number)
    for over, names in ((np.mean, GROUPS[4::2]), (np.max, GROUPS[5::2])):
        for name, members in zip(names, (["other", "third"], list(errors)), strict=True):
            for values in (errors, nulls):
                values[name] = over([values[m] for m in members], axis=0)
    for name in errors:
        row, (value, *draws) = table.loc[name], errors[name]
        assert row["ece"] == pytest.approx(value)
        assert row["ece_null"] == pytest.approx(np.quantile(nulls[name], 0.95))
        assert row["ece_low"] == pytest.approx(max(0, value - row["ece_null"]))
        assert row["ece_high"] == pytest.approx(min(1, value + 1.959964 * np.std(draws)))


def test_findings_and_scalars_are_those_of_the_table(subject, table):
    result = Detection()(subject)
    assert result.scalars["unseen_worst_ece"] == table.loc["the worst of them", "ece"]
    assert result.scalars["seen_ap"] == table.loc["seen", "ap"]
    row = table.loc["the worst of them"]
    least = table.loc[["other", "third"], "ap"].idxmin()
    assert result.findings[2] == (
        f"On the worst of them: AP {row['ap']:.3f} ({row['ap_low']:.3f} to {row['ap_high']:.3f}; "
        f"{least})."
    )
    row = table.loc["the seen generator"]
    assert result.findings[0].startswith(f"On the seen generator: AP {row['ap']:.3f} (")
    remark = "" if row["ece"] > row["ece_null"] else ": no sign of miscalibration"
    assert result.findings[0].endswith(
        f"calibration error {row['ece']:.3f}, where 95 % of calibrated detectors stay below "
        f"{row['ece_null']:.3f}{remark}."
    )
    assert list(table["seen"]) == [True, False, False, True] + [False] * 4


def test_shares_at_few_false_alarms_need_images(subject):
    result = Detection()(subject)
    table = result.tables["detection"]
    assert table[["tpr_at_1", "tpr_at_5", "tpr_at_1_low", "tpr_at_5_high"]].isna().all(axis=None)
    names = "seen, other, third"
    assert result.warnings == [
        f"The share caught at 1 % false alarms is not given for {names}: that takes at least 299 "
        "real images.",
        f"The share caught at 5 % false alarms is not given for {names}: that takes at least 59 "
        "real images.",
    ]
    assert not any("false alarms" in finding for finding in result.findings)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    root = tiny.tree(tmp_path_factory.mktemp("many"), ("other", "seen", "third"), images=60, size=8)
    return fake_subject.subject(root)


def test_the_headline_is_the_least_rate_that_can_be_told(many):
    result = Detection()(many)
    row = result.tables["detection"].set_index("generator").loc["the seen generator"]
    assert (
        f"; at 5 % false alarms it catches {100 * row['tpr_at_5']:.0f} % "
        f"({100 * row['tpr_at_5_low']:.0f} to {100 * row['tpr_at_5_high']:.0f});"
    ) in result.findings[0]
    assert [w for w in result.warnings if "5 % false" in w] == []


def test_the_figure_shows_the_generators_and_no_means(many):
    result = Detection()(many)
    table = result.tables["detection"].set_index("generator")
    ax = result.figures["detection"].axes[0]
    rows = [text.get_text() for text in ax.get_yticklabels()]
    assert rows == ["seen (seen)", "other", "third"]
    line = next(x for x in ax.lines if x.get_label() == "caught at 5 % false alarms")
    np.testing.assert_allclose(line.get_xdata(), table["tpr_at_5"].head(3))
    assert not any("at 1 %" in x.get_label() for x in ax.lines)  # of too few images
    whiskers = [[s[0, 0], s[1, 0]] for c in ax.collections for s in c.get_segments()]
    assert table.loc["third", ["ap_low", "ap_high"]].tolist() in whiskers


def test_few_images_are_told_by_detection_alone(subject):
    result = run({"detection": Detection()}, subject)["detection"]
    assert any(w.startswith("Fewer than 30 real or generated images of") for w in result.warnings)


def test_photographs_are_drawn_as_a_whole(many, monkeypatch):
    """Intervals of images of which ten at a time are of one photograph are wider."""
    alone = Detection()(many).tables["detection"].set_index("generator")
    groups = np.arange(len(many.labels)) // 10
    monkeypatch.setitem(vars(many.images.test), "groups", groups)
    for evaluator in evaluators(many):
        labels = many.labels[evaluator.rows]
        expected = draw_resamples(labels, many.draws, many.seed, groups[evaluator.rows])
        np.testing.assert_array_equal(evaluator.resamples, expected)
    result = run({"detection": Detection()}, many)["detection"]
    table = result.tables["detection"].set_index("generator")
    for name in ("ap", "fake_accuracy"):
        width, least = (t[f"{name}_high"] - t[f"{name}_low"] for t in (table, alone))
        assert (width > 1.2 * least).all()
    assert any("Intervals allow for the chance of the groups" in w for w in result.warnings)


def test_single_seen_generator_has_no_mean(tmp_path):
    root = tiny.tree(tmp_path, ("seen",), images=6, size=16)
    table = Detection()(fake_subject.subject(root)).tables["detection"]
    assert list(table["generator"]) == ["seen", "the seen generator"]


def test_means_and_worst_are_not_repeated(tmp_path, monkeypatch):
    subject = fake_subject.subject(tiny.tree(tmp_path, ("one", "seen"), images=6, size=16))
    for seen, rows in (
        ({"one", "seen"}, ["the 2 seen generators (mean)", "the worst of all"]),
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
