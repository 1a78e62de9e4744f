"""Which channels mediate the effect of color: a detector of red, one of luma, and loops by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import t
from tests.helpers import tiny
from torch import nn

from tff.ablations.color import Grayscale
from tff.ablations.frequency import Lowpass
from tff.analyses.engine.analysis import run
from tff.analyses.engine.controls import Controls
from tff.analyses.engine.evaluation import GROUPS
from tff.analyses.engine.top_channels import CRITERIA, TooFewImagesError
from tff.analyses.mediation import Mediation, is_found, ratio
from tff.data.datamodule import Splits
from tff.data.synthetic.planted import Planted
from tff.detectors.detector import Detector
from tff.detectors.hooks import record_outputs
from tff.statistics.bootstrap import Estimate

CUE = Grayscale()
K = 3  # of 12 channels


@pytest.fixture(scope="module")
def result(red_subject):
    return Mediation(CUE, channels=4, random_draws=3)(red_subject)


@torch.no_grad()
def gap_without(subject, rows, channels):
    """Gap with these channels' maps taken from the images without color, one image at a time."""
    net, found = subject.detector.network, []
    for image in tiny.pixels(subject.images.test)[rows]:
        with record_outputs(subject.detector, ["conv1", "conv2"]) as maps:
            subject.detector(CUE(image[None]))
        without = dict(maps)
        one = net.conv1(subject.detector.normalise(image[None]))
        one[:, [c for c in channels if c < 6]] = without["conv1"][:, [c for c in channels if c < 6]]
        x = net.bn1(one).relu()
        two, late = net.conv2(x), [c - 6 for c in channels if c >= 6]
        two[:, late] = without["conv2"][:, late]
        found.append(float(net.fc((net.bn2(two) + x).relu().mean((2, 3)))))
    labels = subject.labels[rows]
    return np.mean(np.array(found)[labels == 1]) - np.mean(np.array(found)[labels == 0])


def test_effects_equal_a_loop_over_images(red_subject, result):
    table = result.tables["mediation"].set_index("generator")
    order = result.tables["mediation_all"]
    flat = [red_subject.channels.flat_index(r.layer, r.channel) for r in order.itertuples()]
    matched = Controls(red_subject.channels, torch.tensor(flat), red_subject.seed).matched(3)
    found = {}
    for generator, rows in red_subject.generators():
        plain = gap_without(red_subject, rows, [])
        effects = {
            "gap": plain,
            "total": plain - gap_without(red_subject, rows, range(12)),
            "mediated": plain - gap_without(red_subject, rows, flat[:K]),
            "mediated_by_ranked": plain - gap_without(red_subject, rows, red_subject.top.tolist()),
            "mediated_by_matched": np.mean(
                [plain - gap_without(red_subject, rows, c[:K].tolist()) for c in matched]
            ),
        }
        found[generator] = effects
        more = table.loc[generator, "more_than_matched"]
        assert more == pytest.approx(
            effects["mediated"] - effects["mediated_by_matched"], rel=1e-4, abs=1e-4
        )
        for name, expected in effects.items():
            assert table.loc[generator, name] == pytest.approx(expected, rel=1e-4, abs=1e-4), name
        assert table.loc[generator, "share"] == pytest.approx(
            effects["mediated"] / effects["total"], rel=1e-4
        )
        for position, c in enumerate(flat[:4]):
            if generator == "seen":
                single = result.tables["mediation_channels"].query("where == 'seen'")
                expected = plain - gap_without(red_subject, rows, [c])
                assert single["exact"].iloc[position] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    unseen = table.loc[GROUPS["unseen"]]
    for name in ("gap", "total", "mediated"):
        mean = np.mean([found[g][name] for g in found if g != "seen"])
        assert unseen[name] == pytest.approx(mean, rel=1e-4, abs=1e-4)


def test_order_and_estimates_are_those_of_attribution(red_subject, result):
    table = result.tables["mediation_all"]
    assert list(table["position"]) == list(range(1, 13))
    found = red_subject.attribute(CUE, "discovery")
    gap, error = found.gap(["seen"])
    flat = [red_subject.channels.flat_index(r.layer, r.channel) for r in table.itertuples()]
    assert flat == np.argsort(-np.abs(gap), kind="stable").tolist()
    np.testing.assert_array_equal(table["mediated"], gap[flat])
    np.testing.assert_array_equal(table["mediated_error"], error[flat])
    np.testing.assert_array_equal(red_subject.ranking[table["rank"] - 1], flat)
    test = red_subject.attribute(CUE)
    np.testing.assert_array_equal(table["estimate_unseen"], test.gap(["other", "third"])[0][flat])


def test_color_flows_through_the_channel_that_sees_red(result):
    table = result.tables["mediation_channels"]
    red = table.query("where == 'seen' and layer == 'conv1' and channel == 0").iloc[0]
    row = result.tables["mediation"].iloc[0]
    assert red["exact"] == table["exact"].max()
    assert red["exact_low"] > 0.8 * row["total"]
    assert red["position"] <= 2
    assert row["share_low"] > 0.9
    sentence = result.findings[0]
    assert sentence.startswith("On the seen generator, color accounts for")
    assert f"{100 * row['share']:.0f} % (" in sentence
    assert f"flows through the {K} channels with the largest effects: " in sentence
    assert sentence.endswith(f" % flows through the top {K} by {CRITERIA['omega']}.")
    assert "are color-conditional by the paper's median test; of all" in result.findings[-1]


def test_intervals_of_means_are_students(red_subject, result):
    logits = {None: red_subject.evaluate().logits, CUE: red_subject.evaluate(CUE).logits}
    change = logits[None] - logits[CUE]
    rows = dict(red_subject.generators())["seen"]
    fakes = change[rows][red_subject.labels[rows] == 1]
    reach = t.ppf(0.975, len(fakes) - 1) * fakes.std(ddof=1) / np.sqrt(len(fakes))
    row = result.tables["mediation"].iloc[0]
    width = row["total_fake_high"] - row["total_fake_low"]
    assert width == pytest.approx(2 * reach, rel=0.4)  # of 50 resamples
    assert row["total_fake"] == pytest.approx(fakes.mean())


def test_curve_ends_at_the_total_effect(result):
    curve, table = result.tables["mediation_curve"], result.tables["mediation"]
    for where in ("seen", "unseen"):
        top = curve.query("where == @where and choice == 'top'")
        assert list(top["channels"]) == [0, 1, 3, 12]
        row = table[table["generator"] == GROUPS[where]].iloc[0]
        assert list(top["effect"].iloc[[0, 2, 3]]) == [0, row["mediated"], row["total"]]
        assert top["share"].iloc[3] == 1


def gray(folder):
    for path in tiny.tree(folder, ("seen", "other"), images=9).rglob("*.png"):
        Image.open(path).convert("L").convert("RGB").save(path)
    return folder


def test_gray_images_have_no_effect_and_the_sentence_says_so(tmp_path):
    subject = tiny.subject(gray(tmp_path), confidence=0)
    result = Mediation(CUE, channels=2, random_draws=2)(subject)
    assert result.findings[:2] == [
        "On the seen generator, the logits are the same with and without color: its effect is 0.",
        "On generators never seen (mean), the logits are the same with and without color: its "
        "effect is 0.",
    ]
    table = result.tables["mediation"]
    assert (table[["total", "total_low", "total_high", "mediated"]] == 0).all(axis=None)
    assert table[["share", "share_low", "share_high"]].isna().all(axis=None)
    assert len(result.findings) == 2  # nothing to compare rankings by


def test_a_detector_of_luma_uses_no_color(red_root):
    detector = tiny.detector()
    luma = torch.tensor([0.299, 0.587, 0.114]) * detector.std.flatten()
    weight = detector.network.conv1.weight
    weight.data = luma[None, :, None, None] * weight.data[:, :1]
    subject = tiny.Subject.of(
        detector, tiny.splits(red_root), draws=200, device="cpu", confidence=0
    )
    result = Mediation(CUE, channels=2, random_draws=2)(subject)
    table = result.tables["mediation"]
    # Only the rounding of luma to whole numbers is left.
    assert (table["total"].abs() < 0.01 * table["gap"].abs().clip(lower=1)).all()
    assert not any("of this effect flows through" in finding for finding in result.findings)


def test_share_only_of_what_is_known_well():
    part = Estimate(1.0, np.linspace(0.5, 1.5, 99))
    for spread, known in ((0.5, True), (1.5, False), (3.0, False)):
        total = Estimate(2.0, np.linspace(2 - spread, 2 + spread, 99))
        assert is_found(total) == (spread < 2)
        assert np.isnan(ratio(part, total).value) != known
        negative = Estimate(-2.0, -total.draws)
        assert np.isnan(ratio(part, negative).value) != known
    assert ratio(part, Estimate(2.0, np.full(99, 2.0))).value == 0.5
    for nothing in (Estimate(0.0, np.zeros(99)), Estimate(np.nan, np.full(99, np.nan))):
        assert np.isnan(ratio(part, nothing).value)
        assert not is_found(nothing)


def test_a_single_generator_and_a_single_image(red_subject):
    test = red_subject.images.test
    rows = test.manifest.groupby(["generator", "label"]).head(1).query("generator == 'seen'")
    splits = Splits(red_subject.images.discovery, type(test)(rows.reset_index(drop=True)))
    subject = tiny.Subject.of(tiny.detector(), splits, draws=20, device="cpu")
    result = Mediation(CUE, channels=2, random_draws=2)(subject)
    assert result.findings == [
        "On the seen generator, there are too few images to tell whether the decision uses color."
    ]
    assert result.tables["mediation"]["share"].isna().all()
    assert set(result.figures) == {"mediation_curve", "mediation_channels"}


def test_validation_images_of_one_kind_cannot_rank(red_subject):
    found = red_subject.images.discovery
    fakes = type(found)(found.manifest.query("label == 1").reset_index(drop=True))
    splits = Splits(fakes, red_subject.images.test)
    subject = tiny.Subject.of(tiny.detector(), splits, draws=20, device="cpu")
    with pytest.raises(TooFewImagesError, match="effects of color: the images on which channels"):
        Mediation(CUE)(subject)


def test_several_cues_share_what_they_can(red_root):
    analyses = {"color": Mediation(CUE, 2, 2), "lowpass": Mediation(Lowpass(), 2, 2)}
    subject = tiny.subject(red_root)
    together = run(analyses, subject)
    alone = analyses["lowpass"](tiny.subject(red_root))
    for name, table in alone.tables.items():
        pd.testing.assert_frame_equal(table, together["lowpass"].tables[name], check_exact=True)
    totals = [together[name].tables["mediation"]["total"] for name in analyses]
    assert not np.allclose(*totals)


def small_detector(images, epochs=8):
    """Detector with three convolutions, trained on these images and their turns."""
    torch.manual_seed(0)
    layers = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))
    detector = Detector(nn.Sequential(*layers, *head), tff_fraction=0.06)
    pixels, labels = tiny.pixels(images), torch.tensor(images.manifest["label"].tolist()).float()
    optimizer = torch.optim.AdamW(detector.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels)).split(64):
            turned = torch.rot90(pixels[rows], int(torch.randint(4, ())), (2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(detector(turned), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return detector.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("cue", "uses_color"), [("chroma", True), ("checkerboard", False)])
def test_planted_cues(cue, uses_color, tmp_path):
    counts = {"train": 500, "val": 100, "test": 100}
    data = Planted(str(tmp_path), cue=cue, counts=counts, strength=2.0)
    splits = Splits(data.discovery(), data.test().select([cue, "none"], None))
    detector = small_detector(data.images("train"))
    subject = tiny.Subject.of(detector, splits, draws=200, device="cpu", confidence=0.5)
    table = Mediation(CUE, channels=3)(subject).tables["mediation"].set_index("generator")
    seen, control = table.loc[cue], table.loc["none"]
    assert seen["gap"] > 1  # the cue is learned
    if uses_color:
        assert seen["total"] > 0.8 * seen["gap"]
        assert seen["share_low"] > 0.7
        assert seen["share"] > seen["share_by_matched"]
    else:
        assert abs(seen["total"]) < 0.2 * seen["gap"]
    # Without a cue there is nothing that color could carry.
    assert abs(control["total"]) < 0.1 * seen["gap"]
