"""What is refused, and how it can be added from outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.helpers import lrp_replica as replicas
from tests.helpers.lrp_agreement import agree
from torch import Tensor, nn

from tff.detectors.trace import LEAVES
from tff.relevance.lrp import LRP
from tff.relevance.rules import RULES, Pass, register_rule


class Changed(nn.Module):
    """A small network with one operation in the middle, which is element by element."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.conv, self.middle, self.last = (
            nn.Conv2d(3, 4, 3, padding=1),
            middle,
            nn.Conv2d(4, 4, 1),
        )
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 1)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.last(self.middle(self.conv(x)))).flatten(1))

    def replay(self, tape: replicas.Tape, a: replicas.Node) -> replicas.Node:
        a = tape.conv(self.last, tape.passes(self.middle, tape.conv(self.conv, a)))
        return tape.linear(self.fc, tape.route(nn.Flatten(), tape.mixture(self.pool, a)))


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Product(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sin(x)


class TwoGates(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * torch.tanh(x)


class Branching(nn.Module):
    """Its course depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x) if x.sum() > 0 else 2 * x


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.fixture
def registry() -> Iterator[None]:
    """Rules that a test adds are taken away again."""
    rules, leaves = dict(RULES), set(LEAVES)
    yield
    for known, before in ((RULES, rules), (LEAVES, leaves)):
        known.clear()
        known.update(before)


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 3, 7, 6, dtype=torch.float64)


def test_error_for_an_unknown_function_tells_how_to_add_a_rule():
    with pytest.raises(NotImplementedError) as caught:
        LRP(Changed(nn.Sequential(nn.ReLU(), Sine())))
    for expected in (
        "no relevance rule for sin ",
        "node 'sin'",
        "in middle.1",
        "behind middle.0",
        "tff.relevance.rules.register_rule(sin)(RULE)",
        "tff.relevance.rules.Pass",
    ):
        assert expected in str(caught.value)


def test_error_for_an_unknown_module_names_its_place():
    with pytest.raises(NotImplementedError, match=r"no relevance rule for Softshrink .*middle\.0"):
        LRP(Changed(nn.Sequential(nn.Softshrink())))


@pytest.mark.parametrize("middle", [Product(), TwoGates()])
def test_product_without_exactly_one_gate_is_refused(middle):
    with pytest.raises(NotImplementedError, match=r"product 'mul' \(in middle\).*a gate"):
        LRP(Changed(middle))


def test_operations_inside_a_gate_need_no_rule(images):
    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(torch.sin(x))

    agree(Changed(Gated()), images)


def test_untraceable_network_is_refused():
    with pytest.raises(
        NotImplementedError, match=r"Changed cannot be traced.* middle \(Branching\)"
    ):
        LRP(Changed(Branching()))


def test_network_with_two_outputs_is_refused():
    with pytest.raises(NotImplementedError, match=r"Pair returns more than one tensor"):
        LRP(Pair())


@pytest.mark.usefixtures("registry")
def test_rule_can_be_registered_for_a_function(images):
    register_rule(torch.sin)(Pass)
    agree(Changed(Sine()), images)


@pytest.mark.usefixtures("registry")
def test_rule_can_be_registered_for_a_module(images):
    register_rule(Branching)(Pass)
    network = Changed(Branching())
    for image in images:  # both branches
        agree(network, image[None])
        agree(network, -image[None])


def test_registered_rules_are_removed_after_each_test():
    assert torch.sin not in RULES
    assert Branching not in LEAVES


def test_more_than_one_logit_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="one logit"):
        LRP(network).explain(torch.rand(2, 3, 5, 5))
