"""LRP-max of neurons and attention heads: where, and from which pixels."""

import pytest
import torch
from tests.helpers import tiny
from tests.helpers import transformer_by_hand as hand
from torch import nn

from tff.relevance.lrp import LRP


class UpToToken(nn.Module):
    """The tiny transformer up to one token of a layer of its first block, times a vector."""

    def __init__(self, network, token, weight, heads=False):
        super().__init__()
        self.network, self.token, self.heads = network, token, heads
        self.head = nn.Linear(len(weight), 1, bias=False)
        self.head.weight.data = weight[None].clone()
        if heads:
            network.blocks[0].attn.proj = nn.Identity()

    def forward(self, x):
        block = self.network.blocks[0]
        x = self.network._pos_embed(self.network.patch_embed(x))
        if self.heads:
            x = block.attn(block.norm1(x))
        else:
            x = x + block.attn(block.norm1(x))
            x = block.mlp.fc1(block.norm2(x))
        return self.head(x[:, self.token])


@pytest.mark.parametrize("kind", ["neurons", "heads"])
def test_relevance_is_that_of_a_network_that_ends_there(kind, rng):
    detector = tiny.transformer().double().eval().requires_grad_(False)
    images = torch.from_numpy(rng.random((3, 3, 32, 32)))
    layer = {"neurons": "blocks.0.mlp.fc1", "heads": "blocks.0.attn.proj"}[kind]
    engine = LRP(detector, box=False)
    channels = torch.from_numpy(rng.integers(0, detector.channels.widths[layer], 3))
    found = engine.explain_maximum(images, layer, channels)
    values = hand.record(detector, images)[1][layer]
    for i, channel in enumerate(channels.tolist()):
        y = hand.of_channel(layer, values[i : i + 1], channel)[0]  # (tokens,) or (tokens, width)
        strength = y.norm(dim=1) if kind == "heads" else y
        token = int(strength.argmax())
        assert found.value[i] == pytest.approx(max(float(strength[token]), 0))
        place = [-1, -1] if token == 0 else [(token - 1) // 8, (token - 1) % 8]
        assert found.position[i].tolist() == place
        if strength[token] <= 0:
            assert not found.pixels[i].any()
            continue
        weight = torch.zeros_like(values[i, token])
        weight[channel] = y[token] / y[token].square().sum()  # so that relevance starts at 1
        other = tiny.transformer().double().eval().requires_grad_(False).network
        ends = LRP(UpToToken(other, token, weight.flatten(), kind == "heads"), box=False)
        expected = ends.explain(detector.normalise(images[i : i + 1]), pixels=True)
        assert expected.logit == pytest.approx(1)
        torch.testing.assert_close(found.pixels[i], expected.pixels[0], rtol=1e-4, atol=1e-7)


def test_embedding_channels_have_a_row_and_a_column(rng):
    detector = tiny.transformer().double().eval()
    images = torch.from_numpy(rng.random((2, 3, 32, 32)))
    found = LRP(detector).explain_maximum(images, "patch_embed.proj", 3)
    maps = hand.record(detector, images)[1]["patch_embed.proj"][:, 3]
    for value, (row, column), one in zip(found.value, found.position, maps, strict=True):
        assert one[row, column] == one.max()
        assert value == pytest.approx(max(float(one.max()), 0))
