import numpy as np
import pytest
from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses import published
from tff.analyses.ablation import Ablation
from tff.analyses.engine.passes import Passes
from tff.analyses.engine.protocol import Protocol
from tff.analyses.published import Published
from tff.analyses.sensitivity import Sensitivity
from tff.published.tables import load_cells

GENERATORS = ("ProGAN", "Style-GAN2", "somegan")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", *GENERATORS))


@pytest.fixture
def subject(root):
    return tiny.subject(root)


@pytest.fixture
def known(monkeypatch):
    """The tiny network passes for one whose numbers are published."""

    def name_it(name):
        monkeypatch.setattr(published, "recognize_architecture", lambda _: name)

    name_it("resnet50")
    return name_it


def rows(subject, **options):
    return Published(**options)(subject).tables["published"]


def one(table, what, metric, generator="Style-GAN2", source="sensitivity"):
    found = table[
        (table["what"] == what) & (table["metric"] == metric)
        & (table["generator"] == generator) & table["source"].str.contains(source)
    ]  # fmt: skip
    assert len(found) == 1
    return found.iloc[0]


def test_ours_are_the_numbers_of_the_other_analyses(subject, root, known):
    table = rows(subject)  # of float32 probabilities, whatever the protocol
    subject = tiny.subject(root, scoring=Protocol(scores="probabilities"))
    sensitivity = Sensitivity()(subject).tables["sensitivity"]
    sensitivity = sensitivity[sensitivity["generator"] == "Style-GAN2"].set_index("dropout")
    for what in ("baseline", "top_k", "random_k", "low_k"):
        ours = sensitivity.loc["none" if what == "baseline" else what]
        row = one(table, what, "ap")
        # Published is AP of the mean probability of random draws, not the mean of their AP.
        assert (row["ours"], row["ours_low"]) == (ours["ap_ensemble"], ours["ap_ensemble_low"])
        theirs = [c.value for c in load_cells() if c.architecture == "resnet50" and c.what == what
                  and c.generator == "stylegan2" and "sensitivity" in c.source
                  and c.metric == "ap"]  # fmt: skip
        assert [row["published"]] == theirs
        assert row["difference"] == row["ours"] - row["published"]
    gray = Ablation(Grayscale())(subject).tables["ablation"].set_index("generator")
    row = one(table, "gray", "ap", source="color-robust")
    assert row["ours"] == gray.loc["Style-GAN2", "ap_ablated"]


def test_accuracies_are_at_the_published_threshold(subject, known):
    table = rows(subject)
    logits, at = subject.evaluate().logits, dict(subject.generators())["ProGAN"]
    right = (logits[at] > 0) == (subject.labels[at] == 1)
    whole = table[(table["metric"] == "accuracy") & (table["generator"] == "ProGAN")]
    assert (whole["ours"] == right.mean()).all()
    fake = one(table, "baseline", "fake_accuracy", "ProGAN")
    assert fake["ours"] == right[subject.labels[at] == 1].mean()
    by_rule = Sensitivity()(subject).tables["sensitivity_thresholds"]
    ours = by_rule.query(
        "generator == 'Style-GAN2' and dropout == 'none' and threshold_rule == 'oracle'"
    )
    real = one(table, "baseline", "real_accuracy")
    assert real["ours"] == ours["real_accuracy"].iloc[0]
    assert real["protocol_matches"]
    assert not table["protocol_differs"].str.contains("threshold").any()


def test_only_what_was_measured_in_the_same_way_is_counted(subject, known):
    result = Published()(subject)
    table = result.tables["published"]
    dropped = table["what"].isin(["top_k", "random_k", "low_k"])
    cropped = table["source"].str.contains("CNNDetection") & ~table["protocol_matches"]
    assert (table.loc[dropped, "protocol_differs"] == f"k 114, here {subject.k}").all()
    assert cropped.sum() == 2 * 2  # of two generators AP and accuracy with a crop
    assert (table.loc[cropped, "protocol_differs"] == "crop center224, here none").all()
    fair = table[table["protocol_matches"]]
    assert len(fair) == len(table) - dropped.sum() - cropped.sum()
    precision = fair[fair["metric"] == "ap"]
    assert result.scalars["ap_compared"] == len(precision)
    assert result.scalars["ap_inside"] == precision["inside_interval"].sum()
    mean = np.abs(precision["ours"] - precision["published"]).mean()
    assert result.scalars["ap_mean_absolute_difference"] == pytest.approx(mean)
    assert f"{100 * mean:.1f} percentage points" in result.findings[0]


def test_generators_without_a_counterpart_are_named(subject, known):
    result = Published()(subject)
    assert set(result.tables["published"]["generator"]) == {"ProGAN", "Style-GAN2"}
    last = result.findings[-1]
    assert "somegan" in last.partition("(tested here")[0]
    assert "biggan" in last.partition("(tested here")[2]


def test_suspect_cells_are_marked_and_not_counted(subject, known):
    known("efficientnet_b0")
    result = Published()(subject)
    table = result.tables["published"]
    suspect = table[table["suspect"] != ""]
    assert set(suspect["generator"]) == {"Style-GAN2"}
    assert set(suspect["what"]) == {"baseline", "gray"}
    assert suspect["protocol_matches"].all()
    fair = table[table["protocol_matches"] & (table["suspect"] == "") & (table["metric"] == "ap")]
    assert result.scalars["ap_compared"] == len(fair)
    (warning,) = result.warnings
    assert "repeats stylegan" in warning


@pytest.mark.parametrize(
    ("recipe", "sources"),
    [("blur_jpeg", 3), ("blur_jpeg_p01", 1), ("color_robust", 1)],
)
def test_a_recipe_chooses_the_published_detector(subject, known, recipe, sources):
    table = rows(subject, recipe=recipe)
    assert table["source"].nunique() == sources
    expected = {"blur_jpeg": 0.991, "blur_jpeg_p01": 0.995, "color_robust": 0.985}[recipe]
    table = table[table["protocol_matches"] & (table["generator"] == "Style-GAN2")]
    baseline = table[(table["what"] == "baseline") & (table["metric"] == "ap")]
    assert set(baseline["published"]) == {expected}


def test_another_architecture_is_a_finding_and_costs_no_pass(subject, monkeypatch):
    monkeypatch.setattr(Passes, "_run", lambda *_: pytest.fail("images were read"))
    result = Published()(subject)
    assert result.tables["published"].empty
    assert "ResNet-50 and EfficientNet-B0" in result.findings[0]
    assert not result.figures


def test_a_recipe_that_an_architecture_lacks_is_a_finding(subject, known):
    known("efficientnet_b0")
    result = Published(recipe="blur_jpeg_p01")(subject)
    assert result.tables["published"].empty
    assert "EfficientNet-B0, trained as blur_jpeg_p01" in result.findings[0]


def test_no_common_generator_is_a_finding_and_costs_no_pass(tmp_path, known, monkeypatch):
    monkeypatch.setattr(Passes, "_run", lambda *_: pytest.fail("images were read"))
    result = Published()(tiny.subject(tiny.tree(tmp_path, ("seen", "other"), images=2)))
    assert result.tables["published"].empty
    assert list(result.tables["published"])[:3] == ["source", "what", "generator"]
    assert "none of the generators tested (other, seen)" in result.findings[0]
    assert "progan" in result.findings[0]


def test_unknown_recipe_is_refused():
    with pytest.raises(ValueError, match=r"recipe=p05: expected one of blur_jpeg, "):
        Published(recipe="p05")
