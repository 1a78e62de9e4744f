"""Attribution patching against loops, finite differences and a network in which it is exact."""

import numpy as np
import pytest
import torch
from tests.helpers import tiny
from torch import nn

from tff.ablations.color import Grayscale
from tff.analyses.engine.attribution import Attribution, number_strata
from tff.analyses.engine.passes import Passes
from tff.analyses.engine.subject import Subject
from tff.data.datamodule import Splits
from tff.detectors.detector import Detector
from tff.relevance.lrp import LRP

CUE = Grayscale()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return tiny.splits(tiny.tree(folder, ("seen", "other"), images=5, size=20, seed=5)).test


def attribute(detector, images, batch_size=32):
    passes = Passes(detector, LRP(detector), torch.device("cpu"), batch_size, 0)
    rows = passes.compute_attribution(images, CUE).rows
    strata = range(4)
    effects, errors = (
        np.array([rows[f"{name} {i}"] for i in strata]) for name in ("effect", "error")
    )
    return Attribution(images, effects, errors)


def patched(detector, image, other, flat, mix):
    """Logits in float64 with one channel's map moved towards that of other images."""
    layer, channel = detector.channels.table().iloc[flat]
    module, seen = detector.network.get_submodule(layer), {}

    def keep(_m, _i, out):
        seen["map"] = out[:, channel].clone()

    def put(_m, _i, out):
        out = out.clone()
        out[:, channel] += mix * (seen["map"] - out[:, channel])
        return out

    with torch.no_grad():
        for hook, given in ((keep, other), (put, image)):
            handle = module.register_forward_hook(hook)
            logits = detector(given)
            handle.remove()
    return logits.numpy()


def changes(detector, image, other, mix):
    """Changes of the logit (N, n_channels) when maps move by `mix`, divided by it; a slow loop."""
    double = detector.double()
    with torch.no_grad():
        plain = double(image).numpy()
    moved = [patched(double, image, other, c, mix) for c in range(len(detector.channels))]
    return (np.stack(moved, axis=1) - plain[:, None]) / mix


def pairs(images):
    """The images with and without color, in float64."""
    image = tiny.pixels(images)
    return image.double(), CUE(image).double()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_estimates_equal_finite_differences_and_stratum_means(images, batch_size):
    found = attribute(tiny.detector(3), images, batch_size)
    image, without = pairs(images)
    slopes = [
        changes(tiny.detector(3), *both, 1e-6) for both in ((without, image), (image, without))
    ]
    by_image = (slopes[0] - slopes[1]) / 2
    strata = number_strata(images)
    assert sorted(np.bincount(strata)) == [5, 5, 5, 5]
    for stratum in range(4):
        of = by_image[strata == stratum]
        np.testing.assert_allclose(found.effects[stratum], of.mean(0), rtol=1e-3, atol=2e-6)
        error = of.std(0, ddof=1) / np.sqrt(len(of))
        np.testing.assert_allclose(found.errors[stratum], error, rtol=1e-2, atol=5e-6)
    labels = images.manifest["label"].to_numpy()
    gap, error = found.gap(["seen", "other"])
    expected = by_image[labels == 1].mean(0) - by_image[labels == 0].mean(0)
    np.testing.assert_allclose(gap, expected, rtol=1e-3, atol=5e-6)
    of = found.errors
    np.testing.assert_allclose(error, np.sqrt(np.square(of / 2).sum(0)))


class Linear(nn.Module):
    """Two convolutions and nothing that bends."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 5, 3)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(5, 1)

    def forward(self, x):
        return self.head(self.pool(self.second(self.first(x))).flatten(1))


def test_estimates_of_a_linear_network_are_exact_and_add_up(images):
    detector = Detector(Linear().eval().requires_grad_(False))
    found = attribute(detector, images)
    image, without = pairs(images)
    exact = -changes(Detector(Linear().eval()), image, without, 1.0)
    strata = number_strata(images)
    expected = np.array([exact[strata == i].mean(0) for i in range(4)])
    np.testing.assert_allclose(found.effects, expected, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        total = (detector.double()(image) - detector(without)).numpy()
    totals = [total[strata == i].mean() for i in range(4)]
    for layer in (slice(0, 4), slice(4, 9)):
        np.testing.assert_allclose(found.effects[:, layer].sum(1), totals, rtol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_channels_are_patched_with_maps_of_the_same_image_without_the_cue(images, batch_size):
    detector = tiny.detector(3)
    passes = Passes(detector, LRP(detector), torch.device("cpu"), batch_size, 0)
    choices = {str(c): torch.tensor([c]) for c in range(12)} | {"first layer": torch.arange(6)}
    rows = passes.compute_outputs_without_channels(images, choices, CUE).rows
    exact = -changes(tiny.detector(3), *pairs(images), 1.0)
    with torch.no_grad():
        plain, ablated = (tiny.detector(3).double()(x).numpy() for x in pairs(images))
    found = plain[:, None] - rows[[str(c) for c in range(12)]].to_numpy()
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)
    assert np.abs(exact).max() > 0.1
    # Everything flows through the first layer.
    np.testing.assert_allclose(rows["first layer"], ablated, atol=1e-4)
    assert not any(module._forward_hooks for module in detector.modules())


def test_in_place_operations_do_not_change_recorded_maps(images):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.conv, self.act = nn.Conv2d(3, 4, 3), nn.SiLU(inplace=True)
            self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.pool(self.act(self.conv(x))).flatten(1))

    detector = Detector(InPlace().eval().requires_grad_(False))
    passes = Passes(detector, LRP(detector), torch.device("cpu"), 8, 0)
    rows = passes.compute_outputs_without_channels(images, {"all": torch.arange(4)}, CUE).rows
    with torch.no_grad():
        expected = detector(CUE(tiny.pixels(images))).numpy()
    np.testing.assert_allclose(rows["all"], expected, rtol=1e-4, atol=1e-6)


def test_nothing_changes_in_grayscale_images(images):
    class Nothing:
        cue = "nothing"

        def __call__(self, image):
            return image.clone()

    detector = tiny.detector(3)
    passes = Passes(detector, LRP(detector), torch.device("cpu"), 8, 0)
    rows = passes.compute_attribution(images, Nothing()).rows
    assert (rows.drop(columns=["layer", "channel"]) == 0).all(axis=None)


def test_no_number_is_refused(images):
    detector = tiny.detector()
    detector.network.fc.weight.data[0] = torch.nan
    subject = Subject.of(detector, Splits(images, images), device="cpu")
    with pytest.raises(ValueError, match=r"of color are no numbers \(NaN\) .* such as .*png"):
        subject.attribute(CUE)


def test_a_generator_without_real_images_has_no_gap(images):
    fake = images.manifest[images.manifest["label"] == 1].reset_index(drop=True)
    found = attribute_strata(type(images)(fake))
    assert np.isnan(found.gap(["seen"])[0]).all()


def attribute_strata(images):
    subject = Subject.of(tiny.detector(), Splits(images, images), device="cpu")
    return subject.attribute(CUE)


def test_several_generators_share_real_images(images):
    kept = images.manifest.query("label == 1 or generator == 'seen'").reset_index(drop=True)
    shared = type(images)(kept, real_of={"other": "seen"})
    found = attribute_strata(shared)
    order = {key: i for i, key in enumerate([("other", 1), ("seen", 0), ("seen", 1)])}
    effects, errors = found.effects, found.errors
    gap, error = found.gap(["seen", "other"])
    fakes = [order["seen", 1], order["other", 1]]
    np.testing.assert_allclose(gap, effects[fakes].mean(0) - effects[order["seen", 0]])
    # The real images count once, not as two independent sets.
    variance = np.square(errors[fakes] / 2).sum(0) + np.square(errors[order["seen", 0]])
    np.testing.assert_allclose(error, np.sqrt(variance))
