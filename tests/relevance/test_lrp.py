from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests import replicas
from torch import Tensor, nn

from tff.detectors.base import Detector
from tff.relevance.lrp import LRP, channel_relevance, positive_share

KINDS = [("basic", 3, 1), ("bottleneck", 4, 2), ("inverted", 4, 1)]


@pytest.fixture(scope="module")
def network() -> replicas.Network:
    return replicas.network(KINDS, seed=11, pool=nn.MaxPool2d(3, 2, 1))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(5, 3, 11, 9, dtype=torch.float64, generator=torch.manual_seed(1))


class Changed(nn.Module):
    """A small network with one operation in the middle."""

    def __init__(self, middle: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.middle, self.norm = nn.Conv2d(3, 4, 3, padding=1), middle, norm
        self.last, self.pool = nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.middle(self.conv(x)))
        x = x if self.norm is None else self.norm(x)
        return self.fc(self.pool(x).flatten(1))


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Product(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.relu(x)


class Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1.0


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x


def test_batch_composition_does_not_matter(network, images):
    engine = LRP(network)
    together = engine.explain(images, pixels=True)
    for i in range(len(images)):
        alone = engine.explain(images[i : i + 1], pixels=True)
        assert (alone.shares[0] - together.shares[i]).abs().max() <= 1e-12
        assert (alone.logit[0] - together.logit[i]).abs() <= 1e-12
        torch.testing.assert_close(alone.pixels[0], together.pixels[i], rtol=1e-9, atol=1e-12)
    turned = engine.explain(images.flip(0))
    assert (turned.shares.flip(0) - together.shares).abs().max() <= 1e-12


def test_memory_format_does_not_matter(network, images):
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    found = LRP(last).explain(images.to(memory_format=torch.channels_last), pixels=True)
    usual = LRP(network).explain(images, pixels=True)
    assert (found.shares - usual.shares).abs().max() <= 1e-12
    torch.testing.assert_close(found.pixels, usual.pixels, rtol=1e-9, atol=1e-12)


def test_sign_of_each_image(network, images):
    engine = LRP(network)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0])
    mixed = engine.explain(images, sign)
    for value in (1.0, -1.0):
        alone = engine.explain(images, value)
        assert torch.equal(mixed.shares[sign == value], alone.shares[sign == value])
    assert not torch.equal(engine.explain(images, -1.0).shares, engine.explain(images).shares)


def test_scale_of_the_seed_cancels(network, images):
    engine = LRP(network)
    difference = engine.explain(images, 7.0).shares - engine.explain(images, 1.0).shares
    assert difference.abs().max() <= 1e-12


def test_pixels_only_on_request(network, images):
    engine = LRP(network)
    assert engine.explain(images).pixels is None
    with_pixels = engine.explain(images, pixels=True)
    assert with_pixels.pixels.shape == images.shape
    assert torch.equal(with_pixels.shares, engine.explain(images).shares)


def test_shares_of_a_layer(network, images):
    engine = LRP(network)
    shares = engine.explain(images).shares
    assert (shares >= 0).all()
    for part in engine.channels.split(shares).values():
        assert (part.sum(1) <= 1 + 1e-12).all()


def test_positive_share_by_hand():
    relevance = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]])
    assert positive_share(relevance.double()).tolist() == [[1 / 6, 0.5], [0, 0]]


def test_all_negative_layer_has_no_positive_share():
    assert positive_share(-torch.rand(2, 3, 4, 4)).tolist() == [[0.0] * 3] * 2


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


def test_public_function_takes_module_and_detector(network, images):
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


def test_the_given_module_is_untouched(images):
    made = replicas.network(KINDS, seed=4).train()
    made.blocks.eval()
    made.fc.weight.requires_grad_(False)
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


def test_later_changes_of_the_module_do_not_reach_the_engine(images):
    made = replicas.network(KINDS, seed=4)
    engine = LRP(made)
    before = engine.explain(images).shares
    made.stem.conv.weight.data.zero_()
    assert torch.equal(engine.explain(images).shares, before)


class PreActivation(nn.Module):
    """One ReLU used twice: first on a tensor that is needed again, then on a fresh one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.pool, self.fc = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.relu(self.second(self.relu(x))) + x
        return self.fc(self.pool(x).flatten(1))

    def replay(self, tape: replicas.Tape, a: replicas.Node) -> replicas.Node:
        a = tape.conv(a, self.first)
        a = tape.add(tape.relu(tape.conv(tape.relu(a), self.second)), a)
        return tape.linear(tape.flatten(tape.adaptive_pool(a, self.pool)), self.fc)


def test_shared_activation_does_not_overwrite_what_is_needed_again(images):
    torch.manual_seed(0)
    made = PreActivation().double()
    found = LRP(made).explain(images)
    logit, shares, _ = replicas.explain(made, images, ["first", "second"])
    np.testing.assert_allclose(made(images).detach()[:, 0], logit, rtol=1e-9)
    np.testing.assert_allclose(found.logit, logit, rtol=1e-9)
    np.testing.assert_allclose(found.shares, shares, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("middle", "node"),
    [
        (Sine(), "sin"),
        (nn.LayerNorm([4, 8, 8]), "middle"),
        (Product(), "mul"),
        (Shift(), "add"),
        (Doubled(), "add"),
    ],
)
def test_unsupported_operation_is_named(middle, node):
    with pytest.raises(NotImplementedError, match=node):
        LRP(Changed(middle))


def test_unsupported_operation_names_its_kind():
    with pytest.raises(NotImplementedError, match="LayerNorm"):
        LRP(Changed(nn.LayerNorm([4, 8, 8])))


def test_untraceable_network():
    with pytest.raises(NotImplementedError, match=r"Changed cannot be traced"):
        LRP(Changed(Branching()))


def test_norm_elsewhere_than_behind_a_convolution():
    with pytest.raises(NotImplementedError, match=r"middle\.1"):
        LRP(Changed(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4))))


@pytest.mark.parametrize(
    "padding", [{"padding_mode": "reflect", "padding": 1}, {"padding": "same"}]
)
def test_unsupported_padding(padding):
    with pytest.raises(NotImplementedError, match="padding"):
        LRP(Changed(nn.Conv2d(4, 4, 3, **padding)))


def test_more_than_one_logit():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="one logit"):
        LRP(network).explain(torch.rand(2, 3, 5, 5))
