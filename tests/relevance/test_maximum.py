"""LRP-max: which pixels made a channel most active where it is most active."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.helpers import lrp_replica as replicas
from tests.helpers.lrp_agreement import CASES, DOUBTFUL, close
from torch import Tensor, nn

from tff.relevance.lrp import LRP

KINDS = [("basic", 3, 1), ("inverted", 4, 2)]


@pytest.fixture(scope="module")
def network() -> replicas.Network:
    return replicas.network(KINDS, seed=3, pool=nn.MaxPool2d(2))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 9, 8, dtype=torch.float64, generator=torch.manual_seed(1))


@given(CASES, st.booleans(), st.booleans(), st.data())
def test_random_networks_agree_with_the_replica(case, box, one, data):
    assume(case.fits)
    network, images = case.network, case.images
    engine = LRP(network, box=box)
    layer = data.draw(st.sampled_from(engine.channels.layers))
    channel = st.integers(0, engine.channels.widths[layer] - 1)
    channels = data.draw(st.lists(channel, min_size=len(images), max_size=len(images)))
    channels = channels[:1] * len(images) if one else channels
    found = engine.explain_maximum(images, layer, channels[0] if one else torch.tensor(channels))
    value, place, pixels, doubt = replicas.explain_maximum(network, images, layer, channels, box)
    close(found.value, value, 1e-11)
    if doubt <= DOUBTFUL:
        close(found.pixels, pixels, 1e-9)
    rows = torch.arange(len(images))
    maps = replicas.outputs(network, images, layer)[rows, channels]
    at = maps[rows, found.position[:, 0], found.position[:, 1]]
    close(at, maps[rows, place[:, 0], place[:, 1]], 1e-12)  # rounding may break a tie


def test_images_of_a_batch_do_not_affect_each_other(network, images):
    engine = LRP(network)
    together = engine.explain_maximum(images, "blocks.0.conv1", torch.tensor([2, 0, 1]))
    for i, channel in enumerate([2, 0, 1]):
        alone = engine.explain_maximum(images[i : i + 1], "blocks.0.conv1", channel)
        assert torch.equal(alone.position[0], together.position[i])
        torch.testing.assert_close(alone.pixels[0], together.pixels[i], rtol=1e-9, atol=1e-12)


def test_pixel_relevance_sums_to_one_within_the_receptive_field(network, images):
    found = LRP(network).explain_maximum(images, "stem.conv", 1)
    torch.testing.assert_close(
        found.pixels.sum((1, 2, 3))[found.value > 0], torch.ones(3).double(), rtol=1e-5, atol=0
    )
    for image, (y, x) in zip(found.pixels, found.position, strict=True):
        assert (image[:, : max(y - 1, 0)] == 0).all()
        assert (image[:, y + 2 :] == 0).all()
        assert (image[:, :, : max(x - 1, 0)] == 0).all()
        assert (image[:, :, x + 2 :] == 0).all()


def test_channel_without_a_positive_output_has_no_relevance(images):
    network = replicas.network(KINDS, seed=3)
    network.blocks[0].bn1.bias.data[1] = -100
    found = LRP(network).explain_maximum(images, "blocks.0.conv1", torch.tensor([1, 0, 1]))
    assert found.value[[0, 2]].tolist() == [0, 0]
    assert (found.pixels[[0, 2]] == 0).all()
    assert found.value[1] > 0
    assert found.pixels[1].any()


class Red(nn.Module):
    """Its first layer has a channel that is the red of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 2, 1), nn.Linear(2, 1)
        self.conv.weight.data.zero_()
        self.conv.weight.data[0, 0], self.conv.bias.data[:] = 1, torch.tensor([0.0, 3.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("equal", "first"),
    [
        ([(0, 2), (3, 1)], (3, 1)),  # by columns
        ([(3, 1), (1, 1), (0, 3)], (1, 1)),  # then by rows
        ([(0, 0), (4, 4)], (0, 0)),
    ],
)
def test_first_of_equal_maxima_by_column_then_row(equal, first):
    image = torch.zeros(1, 3, 5, 5)
    for y, x in equal:
        image[0, 0, y, x] = 2
    found = LRP(Red(), box=False).explain_maximum(image, "conv", 0)
    assert found.value.tolist() == [2]
    assert tuple(found.position[0].tolist()) == first
    assert found.pixels.nonzero().tolist() == [[0, 0, *first]]
    assert found.pixels.sum() == 1


def test_constant_channel_gives_pixels_no_relevance():
    found = LRP(Red(), box=False).explain_maximum(torch.rand(2, 3, 4, 4), "conv", 1)
    assert found.value.tolist() == [3, 3]
    assert found.position.tolist() == [[0, 0], [0, 0]]
    assert (found.pixels == 0).all()  # nothing speaks for it but its bias


def test_unknown_layer_is_refused(network, images):
    for layer in ("stem", "nothing", "blocks.1.reduce"):
        with pytest.raises(KeyError, match=layer):
            LRP(network).explain_maximum(images, layer, 0)


@pytest.mark.parametrize("channel", [3, -1, torch.tensor([0, 1, 3])])
def test_unknown_channel_is_refused(channel, network, images):
    with pytest.raises(KeyError, match=r"blocks\.0\.conv1"):
        LRP(network).explain_maximum(images, "blocks.0.conv1", channel)
