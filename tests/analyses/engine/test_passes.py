"""Passes against hooks, loops and finite differences written by hand."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses.engine import passes as engine
from tff.analyses.engine.passes import Activity, Outputs, Passes, draw_images, sample_evenly
from tff.relevance.lrp import LRP

NOTHING = torch.empty(0, dtype=torch.int64)
NO_ROWS = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=7, seed=5)


@pytest.fixture(scope="module")
def images(root):
    return tiny.splits(root).test


def passes(batch_size=32, seed=3):
    detector = tiny.detector(seed).to(memory_format=torch.channels_last)
    return Passes(detector, LRP(detector), torch.device("cpu"), batch_size, 0)


def evaluate(made, images, ablation, channels, sample):
    return Outputs.from_table(
        made.compute_outputs(images, ablation, channels, sample), channels, sample
    )


def activity(made, images):
    return Activity.from_table(made.compute_activity(images))


def evaluate_without(made, images, instead):
    return made.compute_outputs_without_channels(images, CHOICES, instead).rows[list(CHOICES)]


def views(images, row):
    """All views of an image, (V, 3, H, W) in [0, 1]."""
    found = [images[0, row, number].image for number in range(images.view.count)]
    return torch.stack(found).float() / 255


@torch.no_grad()
def by_hand(detector, image):
    """Logits (B,) and raw outputs {layer: (B, C, H, W)}, one layer after the other."""
    net = detector.network
    one = net.conv1(detector.normalise(image))
    x = net.bn1(one).relu()
    two = net.conv2(x)
    x = (net.bn2(two) + x).relu()
    return net.fc(x.mean((2, 3)))[:, 0], {"conv1": one, "conv2": two}


def maxima(maps):
    return torch.cat([y.flatten(2).max(2)[0] for y in maps.values()], dim=1)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("limit", [2, 7, 50])
@pytest.mark.parametrize("view", [{}, {"crop": "five24"}, {"crop": "random20", "resize": 26}])
def test_evaluate_equals_layers_run_by_hand(batch_size, limit, view, root):
    images, made = tiny.splits(root, **view).test, passes(batch_size)
    channels, sample = torch.tensor([9, 2, 0, 11]), sample_evenly(images, limit)
    assert len(sample) == 4 * min(limit, 7)
    cue = Grayscale()
    for taken in (None, cue):
        found = evaluate(made, images, taken, channels, sample)
        assert found.sample.dtype == np.float32
        for row in range(len(images)):
            seen = views(images, row) if taken is None else cue(views(images, row))
            logits, maps = by_hand(made.detector, seen)
            # The mean over views counts.
            assert found.logits[row] == pytest.approx(float(logits.mean()), rel=2e-6, abs=1e-5)
            expected = maxima(maps).mean(0).numpy()
            np.testing.assert_allclose(found.responses[row], expected[channels], atol=2e-6)
            if row in sample:
                place = sample.tolist().index(row)
                np.testing.assert_allclose(found.sample[place], expected, atol=2e-6)
    assert not any(module._forward_hooks for module in made.detector.modules())


def test_only_logits(images):
    found = evaluate(passes(), images, None, NOTHING, NO_ROWS)
    assert found.logits.shape == (28,)
    assert found.logits.dtype == np.float64
    assert found.responses is found.sample is None
    only = evaluate(passes(), images, None, NOTHING, np.array([4, 19]))
    assert only.responses is None
    assert only.sample.shape == (2, 12)
    np.testing.assert_array_equal(only.logits, found.logits)


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("view", [{}, {"crop": "five24"}])
def test_activity_equals_a_loop_over_images(batch_size, view, root):
    images, made = tiny.splits(root, **view).test, passes(batch_size)
    found = activity(made, images)
    net, output, response, effect = made.detector.network, [], [], []
    signed: dict[int, list] = {0: [], 1: []}
    for row in range(len(images)):
        for image in views(images, row):
            # By autograd, from leaves in place of the convolutions' outputs.
            _, maps = by_hand(made.detector, image[None])
            output.append(torch.cat([y.mean((2, 3)) for y in maps.values()], 1))
            one = maps["conv1"].clone().requires_grad_()
            x = net.bn1(one).relu()
            two = net.conv2(x)
            two.retain_grad()
            net.fc((net.bn2(two) + x).relu().mean((2, 3))).sum().backward()
            parts = [(y.detach() * y.grad).sum((2, 3)) for y in (one, two)]
            slopes = [y.grad.sum((2, 3)) for y in (one, two)]
            label = int(images.manifest.at[row, "label"])
            signed[label].append(torch.cat([*parts, *slopes], 1))
            if label:
                response.append(maxima(maps))
                effect.append(torch.cat(parts, 1).abs())
    gap = (torch.cat(signed[1]).double().mean(0) - torch.cat(signed[0]).double().mean(0)).numpy()
    both = torch.cat([*signed[0], *signed[1]])[:, :12].abs().double().mean(0)
    np.testing.assert_allclose(found.effect_all, both.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.contrast, gap[:12], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.slope_contrast, gap[12:], rtol=1e-3, atol=1e-6)
    for name, rows in (("output", output), ("response", response), ("effect", effect)):
        expected = torch.cat(rows).double().mean(0).numpy()
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-4, atol=1e-6)
    filters = [w for conv in (net.conv1, net.conv2) for w in conv.weight.detach().double()]
    expected = [float((w**2).sum() ** 0.5) for w in filters]
    np.testing.assert_allclose(found.weight, expected, rtol=1e-6)
    assert not any(module._forward_hooks for module in made.detector.modules())


def test_effect_is_the_slope_when_a_channel_is_turned_down(images):
    made = passes()
    found = activity(made, images).effect
    fakes = np.flatnonzero(images.manifest["label"] == 1)
    detector, step = tiny.detector(3).double(), 1e-6
    expected = np.zeros(12)
    for channel in range(12):
        layer, which = ("conv1", "conv2")[channel // 6], channel % 6
        for row in fakes:
            image, moved = views(images, row).double(), []
            for factor in (1 + step, 1 - step):

                def turn(_m, _i, out, factor=factor, which=which):
                    out = out.clone()
                    out[:, which] *= factor
                    return out

                handle = detector.network.get_submodule(layer).register_forward_hook(turn)
                with torch.no_grad():
                    moved.append(float(detector(image)))
                handle.remove()
            expected[channel] += abs(moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(found, expected / len(fakes), rtol=1e-3, atol=1e-6)


def test_large_outputs_are_not_cut_off(images):
    made = passes()
    made.detector.network.conv1.weight.data[2] *= 1e4
    _, maps = by_hand(made.detector, torch.cat([views(images, row) for row in range(28)]))
    fakes = torch.tensor(images.manifest["label"] == 1)
    expected = maxima(maps)[fakes].double().mean(0)
    assert expected[2] > 1000
    found = activity(made, images).response
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-5)


def test_activity_of_any_batches_is_the_same_mean_and_leaves_no_gradient(images):
    made = passes()
    one, again = activity(made, images), activity(made, images)
    for name in ("output", "response", "effect", "weight"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert all(parameter.grad is None for parameter in made.detector.parameters())


def contrast_by_hand(made, images, gone):
    """Contrast of each channel in float64, with some channels at 0."""
    net, g = copy.deepcopy(made.detector.network).double(), {0: [], 1: []}
    here = torch.tensor([float(c not in gone) for c in range(12)]).double().view(2, 1, -1, 1, 1)
    for row in range(len(images)):
        for image in views(images, row):
            pixels = made.detector.normalise(image[None]).double()
            one = (net.conv1(pixels) * here[0]).detach().requires_grad_()
            x = net.bn1(one).relu()
            two = net.conv2(x) * here[1]
            two.retain_grad()
            net.fc((net.bn2(two) + x).relu().mean((2, 3))).sum().backward()
            parts = [(y.detach() * y.grad).sum((2, 3)) for y in (one, two)]
            g[int(images.manifest.at[row, "label"])].append(torch.cat(parts, 1))
    return (torch.cat(g[1]).mean(0) - torch.cat(g[0]).mean(0)).numpy()


@pytest.mark.parametrize("share", [0.02, 0.4, 1.0])
def test_order_of_removal_equals_a_loop(images, share, monkeypatch):
    monkeypatch.setattr(engine, "REMOVED", share)
    made, order, steps = passes(), [], [1, 1, 2, 3, 5, 8]
    if share == 0.02:
        steps = [1, 12]
    elif share == 0.4:
        steps = [1, 1, 2, 3, 12]
    for step in steps:
        contrast = contrast_by_hand(made, images, order)
        best = [c for c in np.argsort(-contrast, kind="stable") if c not in order]
        order += best[:step]
    found = made.compute_removal_order(images).rows["greedy"].to_numpy()
    assert np.argsort(-found).tolist() == order
    assert sorted(found) == list(range(1, 13))


def test_order_of_removal_needs_both_kinds(images):
    real = images.manifest[images.manifest["label"] == 0].reset_index(drop=True)
    assert passes().compute_removal_order(type(images)(real)).rows["greedy"].isna().all()


def put(detector, image, channels, other):
    """Logits with channels exchanged, layer by layer: other = {layer: maps of the same shape}."""
    net = detector.network

    def exchange(layer, out, start):
        for c in channels:
            if start <= c < start + 6:
                out[:, c - start] = 0 if other is None else other[layer][:, c - start]
        return out

    with torch.no_grad():
        one = exchange("conv1", net.conv1(detector.normalise(image)), 0)
        x = net.bn1(one).relu()
        x = (net.bn2(exchange("conv2", net.conv2(x), 6)) + x).relu()
        return net.fc(x.mean((2, 3)))[:, 0]


CHOICES = {
    "one": torch.tensor([0]),
    "late": torch.tensor([7, 11]),
    "both": torch.tensor([10, 1, 4]),
    "none": NOTHING,
}


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("view", [{}, {"crop": "five24"}])
@pytest.mark.parametrize("kind", ["zero", "values", "images"])
def test_dropped_channels(kind, view, batch_size, root):
    images, made = tiny.splits(root, **view).test, passes(batch_size)
    values = torch.randn(12, dtype=torch.float64, generator=torch.manual_seed(2))
    replacement_images = draw_images(images, len(images), seed=8)
    of_layer = {f"conv{i + 1}": values[6 * i : 6 * i + 6].view(1, 6, 1, 1) for i in range(2)}
    instead = {"zero": None, "values": of_layer, "images": replacement_images}[kind]
    found = evaluate_without(made, images, instead)
    assert list(found) == list(CHOICES)
    for row in range(len(images)):
        image = views(images, row)
        other = None
        if kind == "values":
            shaped = values.float().view(2, 1, 6, 1, 1)
            other = {f"conv{i + 1}": shaped[i].expand(1, 6, 99, 99) for i in range(2)}
            other = {n: y[:, :, : _side(image), : _side(image)] for n, y in other.items()}
        elif kind == "images":
            other = by_hand(made.detector, views(replacement_images, row)[:1])[1]
        for name, channels in CHOICES.items():
            expected = put(made.detector, image, channels.tolist(), other).mean()
            assert found[name][row] == pytest.approx(float(expected), rel=2e-6, abs=1e-5)
    plain = evaluate(made, images, None, NOTHING, NO_ROWS).logits
    np.testing.assert_array_equal(found["none"], plain)
    assert (found["one"] != plain).any()


def _side(image):
    return (image.shape[-1] + 1) // 2


def test_replacements_of_another_size_are_refused(images, tmp_path):
    larger = tiny.tree(tmp_path / "larger", ("seen", "other"), images=7, size=40)
    other = tiny.splits(larger).test
    with pytest.raises(ValueError, match=r"different sizes \(\(40, 40\) and \(32, 32\)\); pass"):
        evaluate_without(passes(), images, other)
    # Some of them fit, others do not.
    mixed = tiny.tree(tmp_path / "mixed", ("seen", "other"), images=7)
    for number in range(3):
        path = mixed / "seen" / "1_fake" / f"{number}.png"
        Image.open(path).resize((48, 36)).save(path)
    with pytest.raises(ValueError, match=r"different sizes \(\(36, 48\) and \(32, 32\)\); pass"):
        evaluate_without(passes(), images, tiny.splits(mixed).test)
    cropped = tiny.splits(mixed, crop="center32").test
    found = evaluate_without(passes(), images, cropped)
    assert np.isfinite(found["both"]).all()


def test_images_of_several_sizes(tmp_path):
    mixed = tiny.tree(tmp_path, ("seen",), images=4)
    for number, size in enumerate([(48, 36), (36, 48), (48, 36)]):
        path = mixed / "seen" / "0_real" / f"{number}.png"
        Image.open(path).resize(size).save(path)
    images, made = tiny.splits(mixed).test, passes(5)
    found = evaluate(made, images, None, torch.arange(12), np.array([0, 5]))
    for row in range(len(images)):
        logits, maps = by_hand(made.detector, views(images, row))
        assert found.logits[row] == pytest.approx(float(logits), rel=2e-6, abs=1e-5)
        np.testing.assert_allclose(found.responses[row], maxima(maps)[0], atol=2e-6)
    np.testing.assert_array_equal(found.sample, found.responses[[0, 5]].astype(np.float32))
