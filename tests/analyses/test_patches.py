"""LRP-max patches against a loop over single images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses.engine.analysis import run
from tff.analyses.engine.passes import Passes
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import RankingRule
from tff.analyses.median_test import MedianTest
from tff.analyses.patches import Filter, Patches, select_filters
from tff.relevance.lrp import LRP
from tff.relevance.patch import locate_patch, positive_heat


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images of two sizes."""
    root = tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other", "third"), images=7)
    for path in (root / "other").rglob("*.png"):
        image = Image.open(path)
        image.crop((0, 0, 24, 28)).save(path)
    return root


def pixels(path):
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].float() / 255


def maxima(subject, row):
    """(n_channels,) spatial maxima of the raw outputs of one test image."""
    found = {}
    hooks = [
        subject.detector.network.get_submodule(layer).register_forward_hook(
            lambda _m, _i, out, layer=layer: found.update({layer: out.amax((2, 3))[0]})
        )
        for layer in subject.channels.layers
    ]
    with torch.no_grad():
        subject.detector(pixels(subject.images.test.manifest.at[row, "path"]))
    for hook in hooks:
        hook.remove()
    return torch.cat([found[layer] for layer in subject.channels.layers]).numpy()


@pytest.mark.parametrize(("label", "labels"), [("generated", {1}), ("real", {0}), ("all", {0, 1})])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_equal_a_loop_over_images(root, label, labels, batch_size):
    subject = tiny.subject(root, batch_size=batch_size)
    table = Patches(channels=3, images=4, label=label)(subject).tables["patches"]
    rows = [i for i, one in enumerate(subject.labels) if one in labels]
    every = np.stack([maxima(subject, row) for row in rows])
    lrp = LRP(subject.detector)
    assert len(table) == 3 * 4
    for (rank, place), row in zip(
        [(r, p) for r in (1, 2, 3) for p in (1, 2, 3, 4)], table.itertuples(), strict=True
    ):
        flat = int(subject.top[rank - 1])
        assert (row.rank, row.place) == (rank, place)
        assert subject.channels.flat_index(row.layer, row.channel) == flat
        assert row.omega == subject.relevance["fake"].omega[flat]
        at = np.argsort(-every[:, flat])[place - 1]
        assert row.path == subject.images.test.manifest.at[rows[at], "path"]
        assert row.response == pytest.approx(every[at, flat], rel=1e-5)
        found = lrp.explain_maximum(pixels(row.path), row.layer, row.channel)
        assert row.maximum == pytest.approx(float(found.value[0]), rel=1e-5)
        assert [row.peak_row, row.peak_column] == found.position[0].tolist()
        box = locate_patch(positive_heat(found.pixels[0]))
        assert [row.top, row.bottom, row.left, row.right] == list(box)


def test_where_memory_runs_out_pairs_are_explained_in_parts(root, monkeypatch, caplog):
    def of(subject):
        return Patches(channels=3, images=5, label="all")(subject).tables["patches"]

    whole, asked = of(tiny.subject(root, batch_size=8)), []
    explain = LRP.explain_maximum

    def short(self, images, layer, channel):
        asked.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return explain(self, images, layer, channel)

    monkeypatch.setattr(LRP, "explain_maximum", short)
    table = of(tiny.subject(root, batch_size=8))
    kept = ["maximum", "top", "bottom", "left", "right"]  # all else is not of the batch
    pd.testing.assert_frame_equal(table.drop(columns=kept), whole.drop(columns=kept))
    np.testing.assert_allclose(table["maximum"], whole["maximum"], rtol=1e-5)
    assert sum(size for size in asked if size <= 2) == len(table)
    assert len([size for size in asked if size > 2]) <= 2  # what did not fit is not tried again
    assert "patches: " in caplog.text


def test_the_released_box_ends_one_pixel_earlier(root):
    ours, theirs = (
        Patches(channels=2, box=box)(tiny.subject(root)).tables["patches"]
        for box in ("inclusive", "paper")
    )
    for end in ("bottom", "right"):
        assert (ours[end] - theirs[end] == 1).all()
    kept = [column for column in ours if column not in ("bottom", "right")]
    pd.testing.assert_frame_equal(ours[kept], theirs[kept])


def test_channels_that_are_never_positive_have_no_patch(root):
    detector = tiny.detector()
    detector.network.bn2.bias.data[3] = -100.0
    subject = Subject.of(detector, tiny.splits(root), draws=10, device="cpu", k=12)
    result = Patches(images=2)(subject)
    table = result.tables["patches"]
    dead = (table["layer"] == "conv2") & (table["channel"] == 3)
    assert dead.sum() == 2
    assert (table["top"].isna() & table["peak_row"].isna())[dead].all()
    assert (table["maximum"][dead] == 0).all()
    missing = int(table["top"].isna().sum())
    assert result.scalars == {"patches_missing": missing}
    assert f"{missing} of {len(table)} patches are missing" in result.warnings[0]
    figure = result.figures["patches"]
    said = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert said.count("no patch") == missing


def test_no_pass_of_its_own(root, monkeypatch):
    calls = []
    original = Passes.compute_outputs

    def counted(self, *args, **kwargs):
        calls.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Passes, "compute_outputs", counted)
    run({"patches": Patches(), "median": MedianTest(Grayscale())}, tiny.subject(root))
    assert len(calls) == 2  # with and without the cue


def test_of_several_views_the_most_active_is_shown(root):
    subject = Subject.of(tiny.detector(), tiny.splits(root, crop="five16"), draws=10, device="cpu")
    table = Patches(channels=2, images=3)(subject).tables["patches"]
    assert len(table) == 6
    for row in table.itertuples():
        whole = pixels(row.path)
        h, w = whole.shape[2] - 16, whole.shape[3] - 16
        corners = [(0, 0), (0, w), (h, 0), (h, w), (h // 2, w // 2)]
        views = torch.cat([whole[:, :, y : y + 16, x : x + 16] for y, x in corners])
        found = subject.lrp.explain_maximum(views, row.layer, row.channel)
        assert row.view == int(found.value.argmax())
        assert row.maximum == pytest.approx(float(found.value.max()), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, r"patches\.channels=0: expected a whole number"),
        ({"images": -1}, r"patches\.images=-1: expected a whole number"),
        ({"label": "fake"}, r"patches\.label=fake: expected one of ranked, generated, real, all"),
        ({"box": "open"}, r"patches\.box=open: expected one of inclusive, paper"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Patches(**options)


def test_without_such_an_image_it_says_so(root):
    images = tiny.splits(root)
    table = images.test.manifest
    fakes = type(images.test)(table[table["label"] == 1].reset_index(drop=True))
    subject = Subject.of(tiny.detector(), images._replace(test=fakes), draws=10, device="cpu")
    with pytest.raises(ValueError, match="label=real: no such test image"):
        Patches(label="real")(subject)


@pytest.mark.parametrize(("by", "label"), [("omega", 1), ("omega_real", 0), ("contrast", 1)])
def test_images_are_those_by_which_the_channels_were_ranked(root, by, label):
    result = Patches(channels=2, images=2)(tiny.subject(root, ranking=RankingRule(by)))
    assert set(result.tables["patches"]["label"]) == {label}
    assert ("real test images" in result.captions["patches"]) == (label == 0)
    assert result.opening == ["filters", "patches"][-len(result.figures) :]


def test_filters_of_the_first_layer_are_shown(root):
    subject = tiny.subject(root, k=12)
    filters = select_filters(subject, 12)
    assert sorted(f.channel for f in filters) == list(range(6))
    assert {f.layer for f in filters} == {"conv1"}
    ranks = subject.ranking.tolist()
    weight = subject.detector.network.conv1.weight.detach().double().numpy()
    for one in filters:
        assert ranks[one.rank - 1] == one.channel
        np.testing.assert_array_equal(one.weights, weight[one.channel])
    result = Patches(channels=12, images=1)(subject)
    assert list(result.figures) == ["filters", "patches"]
    assert len(result.tables["filters"]) == 6


@pytest.mark.parametrize("frequency", [0, 1, 2, 4])
def test_a_filter_is_described_by_its_frequency_and_color(frequency):
    wave = np.cos(2 * np.pi * frequency / 8 * np.arange(8))
    gray = Filter(1, "conv1", 0, np.broadcast_to(wave, (3, 8, 8)).copy())
    assert gray.peak_frequency == pytest.approx(frequency / 8, abs=0.02)  # 8 weights leak
    assert gray.color_share == pytest.approx(0)
    color = np.array([1.0, -1, 0])[:, None, None] * gray.weights
    assert Filter(1, "conv1", 0, color).color_share == pytest.approx(1)
