"""Passes of a transformer against loops over its channels, images and tokens."""

import numpy as np
import pytest
import torch
from tests.helpers import tiny
from tests.helpers import transformer_by_hand as hand

from tff.ablations.color import Grayscale
from tff.analyses.engine.passes import Activity, Passes, labels_of
from tff.relevance.lrp import LRP


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.splits(tiny.tree(tmp_path_factory.mktemp("images"), images=3)).test


@pytest.fixture(scope="module")
def detector():
    return tiny.transformer().eval().requires_grad_(False)


def passes(detector, batch_size=5):
    return Passes(detector, LRP(detector), torch.device("cpu"), batch_size, 0)


def by_channel(detector, compute):
    """(images, n_channels) of what `compute` gives for a layer and the number of its channel."""
    rows = detector.channels.table().itertuples()
    return torch.stack([compute(row.layer, row.channel) for row in rows], dim=1)


def test_responses_are_maxima_over_tokens(images, detector):
    x = tiny.pixels(images)
    logits, values, _ = hand.record(detector, x)

    def response(layer, channel):
        y = hand.of_channel(layer, values[layer], channel)
        if layer.endswith("attn.proj"):  # a vector at each token
            return torch.stack([torch.stack([t.square().sum().sqrt() for t in i]).max() for i in y])
        return y.flatten(1).max(1).values

    everything = torch.arange(len(detector.channels))
    rows = passes(detector).compute_outputs(images, None, everything, np.arange(2)).rows
    found = rows.filter(like="response").to_numpy()
    np.testing.assert_allclose(found, by_channel(detector, response), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows["logit"], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_activity_sums_over_tokens_and_dimensions(batch_size, images, detector):
    found = Activity.from_table(passes(detector, batch_size).compute_activity(images))
    _, values, slopes = hand.record(detector, tiny.pixels(images))

    def product(layer, channel):
        y, s = (hand.of_channel(layer, of[layer], channel) for of in (values, slopes))
        return (y * s).flatten(1).sum(1)

    g = by_channel(detector, product).numpy()
    fake = labels_of(images) == 1
    expected = g[fake].mean(0) - g[~fake].mean(0)
    np.testing.assert_allclose(found.contrast, expected, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(found.effect, np.abs(g[fake]).mean(0), rtol=1e-3, atol=2e-5)
    for layer, mean in found.heads.items():
        expected = values[layer].mean((0, 1)).flatten()
        np.testing.assert_allclose(mean, expected, rtol=1e-3, atol=1e-5)
    assert [*found.heads] == ["blocks.0.attn.proj", "blocks.1.attn.proj"]


def test_effects_of_a_cue_are_those_of_tokens(images, detector):
    x, cue = tiny.pixels(images), Grayscale()
    with_cue, without = (hand.record(detector, image) for image in (x, cue(x)))

    def effect(layer, channel):
        (y, other), (s, other_s) = (
            [hand.of_channel(layer, of[i][layer], channel) for of in (with_cue, without)]
            for i in (1, 2)
        )
        return ((y - other) * (s + other_s) / 2).flatten(1).sum(1)

    rows = passes(detector).compute_attribution(images, cue).rows
    expected = by_channel(detector, effect).numpy()
    strata = images.manifest.groupby(["generator", "label"]).ngroup().to_numpy()
    for i in range(4):
        mean = expected[strata == i].mean(0)
        np.testing.assert_allclose(rows[f"effect {i}"], mean, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("instead", ["zero", "mean", "without color"])
def test_dropped_channels_of_every_kind(instead, images, detector):
    x, made, channels = tiny.pixels(images), passes(detector), detector.channels
    heads = channels.starts["blocks.0.attn.proj"]
    choices = {
        "one": torch.tensor([channels.starts["blocks.0.mlp.fc1"] + 5]),
        "head": torch.tensor([heads + 1]),
        "all heads": torch.tensor([heads, heads + 1]),
        "kinds": torch.tensor([2, heads, *(channels.starts["blocks.1.mlp.fc1"] + torch.arange(9))]),
    }
    replacement = other = None
    if instead == "mean":
        replacement = Activity.from_table(made.compute_activity(images)).means(channels)
        values = hand.record(detector, x)[1]
        other = {
            layer: y.mean((0, 2, 3) if "embed" in layer else (0, 1)) for layer, y in values.items()
        }
        other = {
            layer: mean.view(1, -1, 1, 1) if "embed" in layer else mean[None, None]
            for layer, mean in other.items()
        }
    elif instead == "without color":
        replacement = Grayscale()
        other = hand.record(detector, replacement(x))[1]
    rows = made.compute_outputs_without_channels(images, choices, replacement).rows
    plain = hand.run(detector, x).detach()
    for name, flat in choices.items():
        expected = hand.drop(detector, x, flat.tolist(), other)
        np.testing.assert_allclose(rows[name], expected, rtol=1e-4, atol=2e-5)
    assert not np.allclose(rows["all heads"], plain, rtol=1e-4, atol=2e-5)
