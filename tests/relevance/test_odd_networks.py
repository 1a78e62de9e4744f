"""Odd ways to write a network: explained as the plain way to write it, or refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.helpers import lrp_replica as replicas
from tests.helpers.lrp_agreement import agree
from torch import Tensor, nn
from torch.nn import functional as F

from tff.relevance.lrp import LRP

Middle = Callable[["Around", Tensor], Tensor]


class Around(nn.Module):
    """Any code between two convolutions, with a third one at hand."""

    def __init__(self, middle: Middle) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.behind = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.beside, self.fc, self.middle = nn.Conv2d(4, 4, 1), nn.Linear(4, 1), middle
        self.constant = nn.Parameter(torch.randn(4, 3, 3))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.behind(self.middle(self, self.before(x))).mean((2, 3)))


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 6, 6, dtype=torch.float64)


def written_over(net: Around, x: Tensor) -> Tensor:
    part = x[:, :2]
    x.relu_()
    return torch.cat([part, part], 1)


def whole_and_part(net: Around, x: Tensor) -> Tensor:
    parts = x.chunk(2, 1)
    return torch.cat([torch.cat(parts, 1)[:, :2], parts[0]], 1)


SAME: dict[str, tuple[Middle, Middle]] = {
    "a type taken from another tensor": (
        lambda net, x: x.type_as(net.beside(x)),
        lambda net, x: x,
    ),
    "a negative factor given by name": (
        lambda net, x: torch.mul(input=torch.relu(x), other=-2.0),
        lambda net, x: torch.relu(x) * -2.0,
    ),
    "a negative alpha": (
        lambda net, x: torch.relu(x).add(torch.relu(net.beside(x)), alpha=-1),
        lambda net, x: torch.relu(x) - torch.relu(net.beside(x)),
    ),
    "a gate with a negative factor": (
        lambda net, x: torch.relu(x) * (torch.sigmoid(net.beside(x)) * -1.0),
        lambda net, x: torch.relu(x) * torch.sigmoid(net.beside(x)) * -1.0,
    ),
    "a value spread over a map by a sum": (
        lambda net, x: x.mean((2, 3), keepdim=True) + net.constant,
        lambda net, x: x.mean((2, 3), keepdim=True).expand(-1, -1, 3, 3) + net.constant,
    ),
    "a value spread over a map by a gate": (
        lambda net, x: x.mean((2, 3), keepdim=True) * torch.sigmoid(x),
        lambda net, x: x.mean((2, 3), keepdim=True).expand(-1, -1, 6, 6) * torch.sigmoid(x),
    ),
    "a quotient of sizes": (
        lambda net, x: F.interpolate(x, scale_factor=x.shape[2] / 3),
        lambda net, x: F.interpolate(x, scale_factor=2.0),
    ),
}


@pytest.mark.parametrize(
    ("one", "other"), [pytest.param(*pair, id=name) for name, pair in SAME.items()]
)
def test_equivalent_networks_have_equal_relevance(one, other, images):
    with torch.no_grad():
        torch.testing.assert_close(Around(one)(images.clone()), Around(other)(images.clone()))
    found, known = (LRP(Around(f)).explain(images, pixels=True) for f in (one, other))
    torch.testing.assert_close(found.logit, known.logit)
    torch.testing.assert_close(found.shares, known.shares, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.pixels, known.pixels, rtol=1e-5, atol=1e-6)


def part_of_what_is_overwritten(net: Around, x: Tensor) -> Tensor:
    torch.relu_(x[:, :2])
    return x


@pytest.mark.parametrize(
    ("middle", "what"),
    [
        (written_over, "overwrites"),
        (part_of_what_is_overwritten, "overwrites"),
        (lambda net, x: torch.cat([torch.relu_(x[:, :2]), x[:, 2:]], 1) + x, "overwrites"),
        (whole_and_part, "chunk"),
    ],
)
def test_untraceable_operations_are_refused(middle, what):
    with pytest.raises(NotImplementedError, match=what):
        LRP(Around(middle))


@pytest.mark.parametrize(
    "middle",
    [
        pytest.param(lambda net, x: x / (x.mean((2, 3), keepdim=True) + 3), id="quotient"),
        pytest.param(
            lambda net, x: F.conv2d(x, net.beside.weight * torch.sigmoid(x).mean()), id="filter"
        ),
    ],
)
def test_product_of_two_feature_maps_is_refused(middle, images):
    with pytest.raises(NotImplementedError):
        LRP(Around(middle)).explain(images)


def test_relevance_lost_on_padding_is_recorded_at_the_padding(images):
    network = replicas.network([("grouped", 4, 1)], seed=3)
    network.blocks[0].middle = nn.Sequential(nn.ZeroPad2d(1), network.blocks[0].middle)
    engine = LRP(network, rule="flat", box=False)
    behind = [name for name, _ in engine.leaky_operations].index("blocks.0.behind")
    explained = engine.explain(images, pixels=True)
    assert explained.conservation[:, behind - 1, 3].abs().max() <= 1e-12  # the grouped convolution
    assert explained.conservation[:, :, 3].abs().sum() > 1e-3


@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
def test_zbox_rule_conserves_relevance_as_in_the_replica(rule, images):
    agree(replicas.network([("basic", 3, 1)], seed=2), images, rule=rule)


def test_compilation_of_a_network_that_computes_sizes(monkeypatch, images):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    engine = LRP(Around(lambda net, x: F.interpolate(x, size=x.shape[2] * 2)), compile=True)
    known = engine.explain(images)
    assert torch.equal(engine.explain(images).shares, known.shares)
