"""Rules of linear layers on tokens, against those of convolutions, which they must equal."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tff.relevance.conv_rules import ON_TOKENS, Epsilon, Gamma


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 7), (3, 2, 4, 7)])
@pytest.mark.parametrize(("kind", "options"), [(Epsilon, {}), (Gamma, {"gamma": 0.3})])
def test_equal_the_rules_of_convolutions(kind, options, shape, bias, rng):
    torch.manual_seed(int(rng.integers(1 << 31)))
    layer = nn.Linear(7, 11, bias=bias).double().requires_grad_(False)
    a = torch.randn(shape).double()
    a[..., 0] = 0
    y = layer(a)
    relevance = torch.randn_like(y)
    arguments = (nn.Linear, layer, [False], 1e-9)
    known, found = kind(*arguments, **options), ON_TOKENS[kind](*arguments, **options)
    expected = known.relevance(relevance, layer, a)
    parts, lost = found.share(relevance.clone(), layer, a, y)
    torch.testing.assert_close(parts, expected, rtol=1e-7, atol=1e-9)
    known_lost = known.lost_to_constants(relevance, expected, a)
    torch.testing.assert_close(lost, known_lost, rtol=1e-9, atol=1e-9)
