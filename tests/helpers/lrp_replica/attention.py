"""Attention by explicit sums over heads, queries, keys and values."""

from __future__ import annotations

from itertools import product

import torch
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.shares import Shared, away_from_zero, stabilised
from tests.helpers.lrp_replica.tape import Tape
from torch import Tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """(B, H, N, K) times (B, H, K, M), element by element."""
    out = torch.zeros(*a.shape[:3], b.shape[3], dtype=a.dtype)
    for i, j, k in product(range(a.shape[2]), range(b.shape[3]), range(a.shape[3])):
        out[:, :, i, j] += a[:, :, i, k] * b[:, :, k, j]
    return out


def halves(a: Tensor, b: Tensor, R: Tensor, parts: int = 2) -> tuple[Tensor, Tensor]:
    """Relevance of both factors of a product: each gets its contribution over e(parts * y)."""
    y = matmul(a, b)
    of_a, of_b = torch.zeros_like(a), torch.zeros_like(b)
    for i, j, k in product(range(a.shape[2]), range(b.shape[3]), range(a.shape[3])):
        share = R[:, :, i, j] / away_from_zero(parts * y[:, :, i, j])
        contribution = a[:, :, i, k] * b[:, :, k, j] * share
        of_a[:, :, i, k] += contribution
        of_b[:, :, k, j] += contribution
    return of_a, of_b


def softmax(x: Tensor) -> Tensor:
    shifted = (x - x.amax(-1, keepdim=True)).exp()
    return shifted / shifted.sum(-1, keepdim=True)


def of_logits(x: Tensor, R: Tensor) -> Tensor:
    """Relevance of the input of a softmax, given that of its output."""
    s = softmax(x)
    found = torch.zeros_like(x)
    for i in range(x.shape[-1]):
        value = x[..., i] * (R[..., i] - s[..., i] * R.sum(-1))
        found[..., i] = torch.where(s[..., i] == 0, 0, value)  # masked: x is -inf
    return found


def weigh(tape: Tape, s: Tensor, v: Node) -> Node:
    """Constant weights s (B, H, N, M) times values (B, H, M, W): the epsilon rule."""
    value = matmul(s, v.value)
    B, H, M, W = v.value.shape
    N = s.shape[2]
    c = torch.zeros(B, H, M, W, H, N, W, dtype=s.dtype)
    for h, j, d, i in product(range(H), range(M), range(W), range(N)):
        c[:, h, j, d, h, i, d] = s[:, h, i, j] * v.value[:, h, j, d]
    c = c.reshape(B, H * M * W, H * N * W)
    return tape._record([v], value, lambda R: stabilised(R, c), "")


def attend(
    tape: Tape, q: Node | Tensor, k: Node, v: Node, scale: float, mask: Tensor | None = None
) -> Node:
    """AttnLRP of attention in one function; queries that are no node are constants."""
    queries = q.value if isinstance(q, Node) else q
    products = scale * matmul(queries, k.value.transpose(2, 3))
    logits = products if mask is None else products + mask
    s = softmax(logits)
    value = matmul(s, v.value)

    def share(R: Tensor) -> Shared:
        of_s, of_v = halves(s, v.value, R.reshape(value.shape))
        back = of_logits(logits, of_s)
        if mask is not None:
            back = torch.where(s == 0, 0, products * back / away_from_zero(logits))
        parts = 2 if isinstance(q, Node) else 1
        of_q, of_k = halves(scale * queries, k.value.transpose(2, 3), back, parts)
        found = [of_k.transpose(2, 3), of_v]
        inputs = torch.cat([r.flatten(1) for r in ([of_q] if parts == 2 else []) + found], 1)
        return Shared(inputs, R.sum(1) - inputs.sum(1), torch.zeros(len(R)))

    return tape._record([q, k, v] if isinstance(q, Node) else [k, v], value, share, "")


def multiply(tape: Tape, a: Node, b: Node) -> Node:
    """A product of two tensors that carry relevance: AttnLRP, half each."""
    value = matmul(a.value, b.value)

    def share(R: Tensor) -> Shared:
        found = halves(a.value, b.value, R.reshape(value.shape))
        inputs = torch.cat([r.flatten(1) for r in found], 1)
        return Shared(inputs, torch.zeros(len(R)), R.sum(1) - inputs.sum(1))

    return tape._record([a, b], value, share, "")


def normalise(tape: Tape, a: Node) -> Node:
    """AttnLRP of the softmax; what it does not give away is lost to constants."""

    def share(R: Tensor) -> Shared:
        inputs = of_logits(a.value, R.reshape(a.value.shape)).flatten(1)
        return Shared(inputs, R.sum(1) - inputs.sum(1), torch.zeros(len(R)))

    return tape._record([a], softmax(a.value), share, "")
