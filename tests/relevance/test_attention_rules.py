"""Attention with masks, shared queries and constant ones, against explicit sums."""

from __future__ import annotations

import math

import pytest
import torch
from tests.helpers.lrp_agreement import close
from tests.helpers.lrp_replica import attention
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.shares import EPSILON
from tests.helpers.lrp_replica.tape import Tape
from torch import Tensor, nn
from torch.nn import functional as F

from tff.relevance.lrp import LRP

HEADS, TOKENS, WIDTH = 2, 5, 3
MASKS = {
    "none": {},
    "scaled": {"scale": 0.3},
    "causal": {"is_causal": True},
    "bool": {"attn_mask": torch.rand(TOKENS, TOKENS) > 0.4},
    "float": {"attn_mask": torch.randn(HEADS, TOKENS, TOKENS, dtype=torch.float64)},
}
for index in range(TOKENS):
    MASKS["bool"]["attn_mask"][index, index] = True


class Masked(nn.Module):
    """Sum of an attention whose q, k and v a convolution computes, (B, heads, tokens, 3 * width).

    Args:
        options: of the attention.
        constant: queries do not depend on the input.
        steps: softmax and products are steps of their own.
    """

    def __init__(self, options: dict, constant: bool, steps: bool) -> None:
        super().__init__()
        self.options, self.constant, self.steps = options, constant, steps
        self.first, self.conv = (nn.Conv2d(HEADS, HEADS, 1).double() for _ in range(2))
        self.query = nn.Parameter(torch.randn(1, HEADS, TOKENS, WIDTH).double())
        self.register_buffer("mask", added(options))
        self.scale = options.get("scale", 1 / math.sqrt(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.conv(self.first(x)).chunk(3, -1)
        q = self.query.expand(x.shape[0], -1, -1, -1) if self.constant else q
        if not self.steps:
            return F.scaled_dot_product_attention(q, k, v, **self.options).flatten(1).sum(1, True)
        s = ((q * self.scale) @ k.transpose(-2, -1) + self.mask).softmax(-1)
        return (s @ v).flatten(1).sum(1, True)

    def replay(self, tape: Tape, a: Node, cp: bool) -> Node:
        packed = tape.conv(self.conv, tape.conv(self.first, a))
        q, k, v = (tape.route(lambda t, i=i: t.chunk(3, -1)[i], packed) for i in range(3))
        if self.constant:
            q = self.query.expand(len(a.value), -1, -1, -1)
        queries = q if self.constant else q.value
        mask = self.mask if self.options.keys() & {"attn_mask", "is_causal"} else None
        if cp:
            products = self.scale * attention.matmul(queries, k.value.transpose(2, 3))
            s = attention.softmax(products + self.mask)
            out = attention.weigh(tape, s, v)
        elif not self.steps:
            out = attention.attend(tape, q, k, v, self.scale, mask)
        else:
            q = tape.passes(lambda t: t * self.scale, q)
            products = attention.multiply(tape, q, tape.route(lambda t: t.transpose(2, 3), k))
            out = attention.multiply(
                tape, attention.normalise(tape, tape.shift(products, self.mask)), v
            )
        return tape.mixture(lambda t: t.flatten(1).sum(1, True), out)


def added(options: dict) -> Tensor:
    """What is added to the products of queries and keys."""
    mask = options.get("attn_mask", torch.zeros(TOKENS, TOKENS, dtype=torch.float64))
    if options.get("is_causal"):
        mask = torch.ones(TOKENS, TOKENS).tril().bool()
    return mask.double().log() if mask.dtype == torch.bool else mask


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("rule", ["cp", "attnlrp", "attnlrp in steps"])
@pytest.mark.parametrize("mask", MASKS)
def test_masked_attention_agrees_with_explicit_sums(mask, rule, constant, rng):
    torch.manual_seed(int(rng.integers(2**31)))
    kind, _, steps = rule.partition(" ")
    if constant and steps:
        pytest.skip("a product with a constant, as of a linear layer without a module")
    network = Masked(MASKS[mask], constant, bool(steps))
    x = torch.randn(2, HEADS, TOKENS, 3 * WIDTH, dtype=torch.float64)
    engine = LRP(network, "epsilon", epsilon=EPSILON, attention=kind, box=False)
    found = engine.explain(x, pixels=True)
    with torch.no_grad():
        tape, start = Tape(network, "epsilon"), Node(x)
        out = network.replay(tape, start, kind == "cp")
        out.relevance += 1
        tape.walk_back()
    close(found.logit, out.value[:, 0], 1e-11)
    close(found.pixels, start.relevance, 1e-7)
    assert found.pixels.isfinite().all()
    ledger = torch.stack([tape.lines[i] for i in range(len(tape.accounts))], 1)
    close(found.conservation[..., :4], ledger[..., :4], 1e-7)


class Alone(nn.Module):
    """Attention of tokens that are queries, keys and values at once, as in `AttentionPoolPrr`."""

    def __init__(self, apart: bool) -> None:
        super().__init__()
        self.first, self.conv = (nn.Conv2d(HEADS, HEADS, 1).double() for _ in range(2))
        self.apart = apart

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.first(x))
        q, k, v = (x * 1, x * 1, x * 1) if self.apart else (x, x, x)
        return F.scaled_dot_product_attention(q, k, v).flatten(1).sum(1, True)


@pytest.mark.parametrize("kind", ["cp", "attnlrp"])
def test_tokens_may_be_queries_keys_and_values_at_once(kind):
    x, found = torch.randn(2, HEADS, TOKENS, WIDTH, dtype=torch.float64), []
    for apart in (False, True):
        torch.manual_seed(0)
        engine = LRP(Alone(apart), attention=kind, box=False)
        found.append(engine.explain(x, pixels=True).pixels)
    torch.testing.assert_close(*found)
