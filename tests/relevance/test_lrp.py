from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.helpers import lrp_replica as replicas
from torch import Tensor, nn

from tff.detectors.detector import Detector
from tff.relevance.conservation import RelevanceSums
from tff.relevance.lrp import LRP, channel_relevance

KINDS = [("basic", 3, 1), ("bottleneck", 4, 2), ("inverted", 4, 1)]


@pytest.fixture(scope="module")
def network() -> replicas.Network:
    return replicas.network(KINDS, seed=11, pool=nn.MaxPool2d(3, 2, 1))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(5, 3, 11, 9, dtype=torch.float64, generator=torch.manual_seed(1))


def test_each_image_may_have_its_own_sign(network, images):
    engine = LRP(network)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0])
    mixed = engine.explain(images, sign)
    for value in (1.0, -1.0):
        alone = engine.explain(images, value)
        assert torch.equal(mixed.shares[sign == value], alone.shares[sign == value])
    assert not torch.equal(engine.explain(images, -1.0).shares, engine.explain(images).shares)


def test_shares_do_not_depend_on_the_scale_of_the_initial_relevance(network, images):
    engine = LRP(network)
    difference = engine.explain(images, 7.0).shares - engine.explain(images, 1.0).shares
    assert difference.abs().max() <= 1e-12


def test_pixel_relevance_is_computed_on_request_only(network, images):
    engine = LRP(network)
    assert engine.explain(images).pixels is None
    with_pixels = engine.explain(images, pixels=True)
    assert with_pixels.pixels.shape == images.shape
    assert torch.equal(with_pixels.shares, engine.explain(images).shares)


def test_shares_of_a_layer_sum_to_at_most_one(network, images):
    engine = LRP(network)
    shares = engine.explain(images).shares
    assert (shares >= 0).all()
    for part in engine.channels.split(shares).values():
        assert (part.sum(1) <= 1 + 1e-12).all()


def test_share_computed_by_hand():
    relevance = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]])
    assert RelevanceSums.of(relevance.double()).share.tolist() == [[1 / 6, 0.5], [0, 0]]


def test_layer_with_negative_relevance_only_has_shares_of_zero():
    assert RelevanceSums.of(-torch.rand(2, 3, 4, 4)).share.tolist() == [[0.0] * 3] * 2


def test_pixel_relevance_changes_only_what_leaves_the_first_layer(network, images):
    engine = LRP(network)
    less, more = (engine.explain(images, pixels=pixels) for pixels in (False, True))
    first = [name for name, _ in engine.leaky_operations].index("stem.conv")
    assert first == 0
    assert less.conservation[:, 0, 1].isnan().all()  # nobody asked what leaves it
    assert torch.equal(less.conservation[:, 1:, :4], more.conservation[:, 1:, :4])
    torch.testing.assert_close(more.conservation[:, 0, 1], more.pixels.sum((1, 2, 3)))
    torch.testing.assert_close(more.conservation[:, -1, 0], torch.ones(5, dtype=torch.float64))
    arrives, leaves, to_bias, at_zero, _ = more.conservation.unbind(2)
    torch.testing.assert_close(leaves + to_bias + at_zero, arrives)


@pytest.mark.parametrize("kind", ["plain", "basic"])
def test_relevance_is_conserved_without_biases(kind):
    made = replicas.network([(kind, 4, 1), (kind, 4, 2)], seed=2, width=4, pool=nn.MaxPool2d(2))
    for name, module in made.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.zero_()
            module.running_mean.zero_()
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.data.zero_()
        if name.endswith(("conv2", "bn2", "down.0", "down.1")):
            module.weight.data.abs_()  # a negative part of a sum may find nobody to pass it on to
    # Without biases a larger image is a larger logit, beside which epsilon is nothing.
    images = 1e6 * torch.randn(3, 3, 9, 9, dtype=torch.float64)
    explained = LRP(made, box=False).explain(images, pixels=True)
    np.testing.assert_allclose(explained.pixels.sum((1, 2, 3)), 1, rtol=1e-6)


def test_channel_relevance_accepts_a_network_or_a_detector(network, images):
    detector = Detector(network).double().eval()
    pixels = images.sigmoid()
    bare = channel_relevance(network, detector.normalise(pixels))
    whole = channel_relevance(detector, pixels)
    assert list(bare) == list(whole) == LRP(network).channels.layers
    for layer, shares in whole.items():
        assert shares.shape == (5, network.get_submodule(layer).out_channels)
        assert torch.equal(shares, bare[layer])


def test_gate_convolutions_have_no_channels(network):
    layers = LRP(network).channels.layers
    assert "blocks.2.expand" in layers
    assert not {"blocks.2.reduce", "blocks.2.restore"} & set(layers)


def test_explaining_does_not_change_the_module(images):
    made = replicas.network(KINDS, seed=4).train()
    made.blocks.eval()
    made.head.fc.weight.requires_grad_(False)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    modes = {n: m.training for n, m in made.named_modules()}
    inplace = {n: getattr(m, "inplace", None) for n, m in made.named_modules()}
    wanted = {n: p.requires_grad for n, p in made.named_parameters()}
    kept = images.clone()
    LRP(made).explain(images, pixels=True)
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())
    assert modes == {n: m.training for n, m in made.named_modules()}
    assert inplace == {n: getattr(m, "inplace", None) for n, m in made.named_modules()}
    assert wanted == {n: p.requires_grad for n, p in made.named_parameters()}
    assert all(p.grad is None for p in made.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in made.modules())
    assert torch.equal(images, kept)


def test_later_changes_of_the_module_have_no_effect(images):
    made = replicas.network(KINDS, seed=4)
    engine = LRP(made)
    before = engine.explain(images).shares
    made.stem.conv.weight.data.zero_()
    assert torch.equal(engine.explain(images).shares, before)
