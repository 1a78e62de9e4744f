"""All rules that convolutions can have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tests.helpers.lrp_agreement import CASES, Case, agree
from torch import nn

from tff.relevance.conv_rules import CONVOLUTIONS
from tff.relevance.lrp import LRP

OPTIONS = {"alphabeta": {"alpha": 1.5}, "gamma": {"gamma": 0.7}}
HIGH, LOW = (1 - 0.406) / 0.225, (0 - 0.485) / 0.229
#: Outputs of both signs in its convolutions.
BOTH_SIGNS = Case(
    [("adaptive", 1, 1)], "convolutional", 0, 1, 1, "average",
    {"kernel_size": 1, "stride": 1, "padding": 0}, 1, (8, 7),
)  # fmt: skip


@given(CASES, st.sampled_from(sorted(CONVOLUTIONS)), st.booleans(), st.booleans())
@example(BOTH_SIGNS, "gamma", True, False)  # float32 would round its 0.7
def test_random_networks_agree_with_the_replica(case, rule, optional, box):
    assume(case.fits)
    options = OPTIONS.get(rule, {}) if optional else {}
    agree(case.network, case.images, case.sign, box, rule=rule, **options)


@pytest.mark.parametrize(
    ("rule", "options", "expected"),
    [
        ("zplus", {}, (1, 0, 0)),  # c = a w = 3, -2, 0; bias 1/2
        ("alphabeta", {}, (2, -1, 0)),
        ("alphabeta", {"alpha": 3.0}, (3, -2, 0)),
        ("alphabeta", {"alpha": 1.0}, (1, 0, 0)),
        ("epsilon", {}, (3 / 1.5, -2 / 1.5, 0)),
        ("gamma", {}, (3.75 / 2.375, -2 / 2.375, 0)),
        ("gamma", {"gamma": 1.0}, (6 / 5, -2 / 5, 0)),
        ("gamma", {"gamma": 0.0}, (3 / 1.5, -2 / 1.5, 0)),
        ("wsquare", {}, (9 / 10, 1 / 10, 0)),
        ("flat", {}, (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_each_rule_computed_by_hand(rule, options, expected):
    network = one_unit()
    image = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64).view(1, 3, 1, 1)
    found = LRP(network, rule=rule, box=False, **options).explain(image, pixels=True).pixels
    torch.testing.assert_close(
        found.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=2e-6, atol=0
    )


@pytest.mark.parametrize(
    ("bias", "gamma", "expected"),
    [
        # c = 3, -2, 0 and the bias; where the output is negative, negative parts * (1 + gamma)
        (-2.0, 0.25, (3 / -2, -2.5 / -2, 0)),
        (-2.0, 1.0, (3 / -5, -4 / -5, 0)),
        (-0.99, 0.25, (3.75 / 0.76, -2 / 0.76, 0)),  # nearly 0 on either side
        (-1.01, 0.25, (3 / -0.7625, -2.5 / -0.7625, 0)),
    ],
)
def test_gamma_rule_strengthens_the_sign_of_the_output(bias, gamma, expected):
    network = one_unit()
    network[0].bias.data[:] = bias
    image = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64).view(1, 3, 1, 1)
    found = LRP(network, rule="gamma", gamma=gamma, box=False).explain(image, pixels=True).pixels
    known = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.flatten(), known, rtol=2e-4, atol=0)  # epsilon of the logit


def test_zbox_rule_computed_by_hand():
    image = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64).view(1, 3, 1, 1)
    c = torch.tensor([3 - 3 * LOW, -2 - LOW, 0])
    for rule in CONVOLUTIONS:  # it takes the place of each
        found = LRP(one_unit(), rule=rule).explain(image, pixels=True).pixels
        torch.testing.assert_close(found.flatten().float(), c / c.sum(), rtol=1e-5, atol=0)


def test_zbox_rule_at_the_upper_bound():
    network = one_unit()
    network[0].weight.data.mul_(-1)
    image = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64).view(1, 3, 1, 1)
    c = torch.tensor([-3 + 3 * HIGH, 2 + HIGH, 0])
    found = LRP(network).explain(image, pixels=True).pixels
    torch.testing.assert_close(found.flatten().float(), c / c.sum(), rtol=1e-5, atol=0)


def one_unit() -> nn.Module:
    """1/2 + 3 red + green, and a linear layer that passes it on."""
    network = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten(), nn.Linear(1, 1, bias=False)).double()
    network[0].weight.data[:] = torch.tensor([3.0, 1.0, 0.0]).view(1, 3, 1, 1)
    network[0].bias.data[:], network[2].weight.data[:] = 0.5, 1.0
    return network


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ({"rule": "zminus"}, "zplus"),
        ({"precision": "fp16"}, "bf16"),
        ({"real_sign": "minus"}, "paper"),
    ],
)
def test_unknown_value_of_an_option_is_refused(option, known):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"relevance\.{name}={value}.*{known}"):
        LRP(one_unit(), **option)
