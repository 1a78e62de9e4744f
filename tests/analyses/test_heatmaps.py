"""Heat maps of single images, and which images are shown."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tests.helpers import tiny
from torch import nn

from tff.analyses.engine.image_selection import select_images
from tff.analyses.engine.subject import Subject
from tff.analyses.heatmaps import Examples, Heatmaps, correlate, explain_pixels
from tff.detectors.detector import Detector
from tff.relevance.lrp import LRP


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=8)


def unsure(root, real_sign="decision", **options):
    """A subject whose detector errs on some of the images."""
    detector = tiny.detector()
    images = tiny.splits(root, **options)
    first = Subject.of(detector, images, draws=10, device="cpu")
    real = first.evaluate().logits[first.labels == 0]
    detector.network.fc.bias.data -= float(np.median(real))
    relevance = partial(LRP, real_sign=real_sign)
    return Subject.of(detector, images, relevance, draws=10, device="cpu")


def test_the_worst_mistakes_and_the_surest_of_both_kinds(root):
    subject = unsure(root)
    logits, labels = subject.evaluate().logits, subject.labels
    paths = subject.images.test.manifest["path"].to_numpy()
    wrong = np.flatnonzero((logits > 0) != (labels == 1))
    assert len(wrong) > 3
    worst = wrong[np.argsort(-np.abs(logits[wrong]))][:3]
    fakes, reals = (
        paths[np.flatnonzero(right)[np.argsort(-np.abs(logits[right]))]]
        for right in ((logits > 0) & (labels == 1), (logits < 0) & (labels == 0))
    )
    mistakes, surest = select_images(subject, (), 3)
    assert [path for path, _, _ in mistakes] == [*paths[worst]]
    assert [path for path, _, _ in surest] == [*fakes[:2], *reals[:1]]
    assert [kind for _, _, kind in surest] == ["generated", "generated", "real"]


def test_probabilities_are_the_detectors(root):
    subject = unsure(root)
    result = Heatmaps(images=2, signed=True)(subject)
    assert list(result.figures) == ["heatmaps_mistakes", "heatmaps_surest"]
    table = result.tables["heatmaps"]
    assert len(table) == 4
    logit_of = dict(
        zip(subject.images.test.manifest["path"], subject.evaluate().logits, strict=True)
    )
    for row in table.itertuples():
        assert row.logit == pytest.approx(logit_of[row.path], abs=1e-4)
        assert row.p == pytest.approx(1 / (1 + np.exp(-row.logit)))
    said = [t.get_text() for ax in result.figures["heatmaps_surest"].axes for t in ax.texts]
    assert f"P = {table['p'].iloc[2]:.2f}, generated" in said


def test_without_mistakes_the_figure_is_empty(root):
    result = Heatmaps()(tiny.subject(root))
    assert result.captions["heatmaps_mistakes"].endswith("There are none.")
    assert (result.tables["heatmaps"]["chosen"] == "surest").all()


@pytest.mark.parametrize("real_sign", ["decision", "paper"])
def test_relevance_speaks_for_the_decision_or_for_generated(root, real_sign):
    subject = unsure(root, real_sign)
    signs = set()
    for row in range(len(subject.labels)):
        image = subject.images.test[0, row].image
        logit, relevance = explain_pixels(subject, image)
        sign = -1.0 if real_sign == "paper" and logit < 0 else 1.0
        signs.add((logit < 0, sign))
        expected = subject.lrp.explain(image[None].float() / 255, sign, pixels=True)
        assert logit == pytest.approx(float(expected.logit), abs=1e-5)
        np.testing.assert_allclose(relevance, expected.pixels[0].double().sum(0), atol=1e-6)
    assert len(signs) == 2


def test_files_of_any_size_in_their_order(root, tmp_path):
    random = np.random.default_rng(0)
    files = []
    for number, (height, width) in enumerate([(20, 33), (700, 40), (32, 32)]):
        files.append(str(tmp_path / f"{number}.{'jpg' if number else 'png'}"))
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(files[-1])
    result = Heatmaps(files=files, images=2, blur=3)(tiny.subject(root))
    assert list(result.figures) == ["heatmaps_files_1", "heatmaps_files_2"]
    assert [*result.tables["heatmaps"]["path"]] == files
    detector = tiny.detector()
    for row in result.tables["heatmaps"].itertuples():
        pixels = torch.from_numpy(np.array(Image.open(row.path))).permute(2, 0, 1)[None] / 255
        assert row.logit == pytest.approx(float(detector(pixels).detach()), abs=1e-4)


def test_files_are_seen_as_the_test_images_are(root, tmp_path):
    path = str(tmp_path / "large.png")
    image = np.random.default_rng(1).integers(0, 256, (50, 60, 3), np.uint8)
    Image.fromarray(image).save(path)
    subject = Subject.of(
        tiny.detector(), tiny.splits(root, crop="center16"), draws=10, device="cpu"
    )
    ((_, seen, _),) = select_images(subject, [path], 4)[0]
    np.testing.assert_array_equal(seen.permute(1, 2, 0), image[17:33, 22:38])


def test_missing_and_damaged_files_are_named(root, tmp_path):
    subject = tiny.subject(root)
    with pytest.raises(FileNotFoundError, match=r"no\.png: no such file"):
        Heatmaps(files=[str(tmp_path / "no.png")])(subject)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"bad\.png.*damaged"):
        Heatmaps(files=[str(tmp_path / "bad.png")])(subject)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur": 4}, r"heatmaps\.blur=4: expected an odd number"),
        ({"blur": -1}, r"heatmaps\.blur=-1: expected an odd number"),
        ({"images": 0}, r"heatmaps\.images=0: expected a whole number"),
        ({"files": "a.png"}, r"heatmaps\.files=a\.png: expected a list, each element a path"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Heatmaps(**options)


def test_examples_show_every_generator(red_subject):
    result = Examples(images=2)(red_subject)
    assert list(result.figures) == ["examples_seen", "examples_other", "examples_third"]
    assert "never seen" in result.captions["examples_other"]


def reader(places):
    """A detector that sums the channels of images of 32 px, with a weight (32, 32) per place."""
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 32, 1))
    network[0].weight.data.fill_(1.0)
    network[0].bias.data.zero_()
    network[3].weight.data[:], network[3].bias.data[:] = places.reshape(1, -1), 0.0
    return Detector(network.eval())


@pytest.mark.parametrize("analysis", [Heatmaps(images=2), Examples(images=2)])
def test_maps_of_the_network_rather_than_the_image_bring_a_warning(root, analysis):
    corner = torch.zeros(32, 32)
    corner[:16, :16] = 1.0
    name = type(analysis).__name__.lower()
    for places, geometry in ((corner, True), (torch.ones(32, 32), False)):
        subject = Subject.of(reader(places), tiny.splits(root), draws=10, device="cpu")
        result = analysis(subject)
        turns, stays = (result.scalars[f"{name}_{what}"] for what in ("turns", "stays"))
        said = [w for w in result.warnings if "geometry of the network" in w]
        assert bool(said) == geometry == (stays >= turns)
        assert f"by {turns:.2f} if it is turned back, and by {stays:.2f}" in result.about
        if geometry:  # nothing of the map lies where it would have to turn to
            assert turns < 0 < stays
            assert f"{stays:.2f}" in said[0]
        else:  # every pixel is explained by itself
            assert turns == pytest.approx(1)


def test_agreement_of_the_map_of_each_image_with_that_of_the_turned_image(root):
    subject = unsure(root)
    table = Heatmaps(images=2)(subject).tables["heatmaps"]
    paths = [*subject.images.test.manifest["path"]]
    for row in table.itertuples():
        image = subject.images.test[0, paths.index(row.path)].image
        (_, one), (_, two) = (explain_pixels(subject, x) for x in (image, image.rot90(2, (1, 2))))
        a, b = one.clip(min=0), two.clip(min=0)
        assert row.stays == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        assert row.turns == pytest.approx(np.corrcoef(a.ravel(), np.rot90(b, 2).ravel())[0, 1])


def test_map_without_positive_relevance_agrees_with_nothing():
    some, none = np.array([[1.0, -2.0], [0.0, 3.0]]), np.full((2, 2), -1.0)
    assert np.isnan(correlate(some, none))
    assert correlate(some, np.array([[2.0, -9.0], [0.0, 6.0]])) == pytest.approx(1)
