"""Records what a network did, then walks back with relevance.

Whatever is linear is a matrix, found by applying it to unit vectors; whatever only moves values is
a list of places, found by applying it to their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
from tests.replicas import geometry
from tests.replicas.shares import CONVOLUTIONS, Shared, box, positive, stabilised, unchanged
from torch import Tensor, nn
from torch.nn import functional as F

Operation = Callable[..., Tensor]


class Node:
    """A tensor (B, ...) and its relevance."""

    def __init__(self, value: Tensor, image: bool = False) -> None:
        self.value, self.relevance, self.image = value, torch.zeros_like(value), image

    @property
    def shape(self) -> torch.Size:
        """Of the values of one image."""
        return self.value.shape[1:]

    @property
    def flat(self) -> Tensor:
        return self.value.flatten(1)


def dense(operation: Operation, *shape: int) -> Tensor:
    """The matrix (N_in, N_out) of an operation that is linear in its input."""
    units = torch.eye(prod(shape), dtype=torch.float64)
    return operation(units.reshape(-1, *shape)).flatten(1)


class Tape:
    """Records the operations of a network.

    Args:
        network: whose modules have names.
        rule: of convolutions.
        box: whether convolutions of the image itself have the z-beta rule.
        options: of the rule.
    """

    def __init__(
        self, network: nn.Module, rule: str = "zplus", box: bool = False, **options: float
    ) -> None:
        self.names = {module: name for name, module in network.named_modules()}
        self.rule, self.box = partial(CONVOLUTIONS[rule], **options), box
        self.steps: list[Callable[[], None]] = []
        self.layers: dict[str, list[Node]] = {}
        self.accounts: list[str] = []
        self.lines: dict[int, Tensor] = {}
        self.doubt = 0.0

    def _record(
        self,
        inputs: list[Node],
        value: Tensor,
        share: Callable[[Tensor], Shared],
        account: str | None = None,
    ) -> Node:
        """An operation.

        Args:
            inputs: what it reads.
            value: of its output.
            share: relevance of the output (B, N_out) -> of all inputs one after the other.
            account: its name in the ledger; None if none of its relevance can be lost.
        """
        out, position = Node(value), len(self.accounts)
        if account is not None:
            self.accounts.append(account)

        def back() -> None:
            R = out.relevance.flatten(1)
            found = share(R)
            self.doubt = max(self.doubt, found.doubt)
            sizes = [prod(node.shape) for node in inputs]
            for node, part in zip(inputs, found.inputs.split(sizes, 1), strict=True):
                node.relevance += part.reshape(node.value.shape)
            if account is not None:
                arrives, leaves = R.sum(1), found.inputs.sum(1)
                negative = positive(-R).sum(1) / R.abs().sum(1).clamp(min=1e-300)
                line = [arrives, leaves, found.to_bias, found.at_zero, negative]
                self.lines[position] = torch.stack(line, 1)

        self.steps.append(back)
        return out

    def passes(self, operation: Operation, a: Node, account: str | None = None) -> Node:
        """Element by element: relevance is unchanged."""
        return self._record([a], operation(a.value.clone()), unchanged, account)

    def mixture(self, operation: Operation, *inputs: Node) -> Node:
        """Linear in all inputs together: epsilon rule."""
        parts = []
        for k, node in enumerate(inputs):

            def alone(unit: Tensor, k: int = k) -> Tensor:
                others = (torch.zeros(len(unit), *other.shape) for other in inputs)
                return operation(*(unit if j == k else other for j, other in enumerate(others)))

            parts.append(node.flat[:, :, None] * dense(alone, *node.shape))
        c, value = torch.cat(parts, 1), operation(*(node.value for node in inputs))
        return self._record([*inputs], value, lambda R: stabilised(R, c), "")

    def route(self, operation: Operation, *inputs: Node, account: str | None = None) -> Node:
        """Moves and copies values: relevance goes back to where they came from."""
        first = 1000  # below that are constants
        sizes = [prod(node.shape) for node in inputs]
        numbers = (first + torch.arange(sum(sizes), dtype=torch.float64)).split(sizes)
        places = [n.reshape(1, *node.shape) for n, node in zip(numbers, inputs, strict=True)]
        source = operation(*places).flatten().long() - first
        copied = source >= 0
        together = torch.cat([node.flat for node in inputs], 1)
        value = operation(*(node.value for node in inputs))
        assert torch.equal(value.flatten(1)[:, copied], together[:, source[copied]])

        def share(R: Tensor) -> Shared:
            back = torch.zeros_like(together).index_add(1, source[copied], R[:, copied])
            return Shared(back, torch.zeros(len(R)), R[:, ~copied].sum(1))

        return self._record([*inputs], value, share, account)

    def largest(self, pool: Operation, windows: Operation, a: Node) -> Node:
        """Max pool: relevance goes to the first of the largest values.

        Args:
            windows: a linear operation with positive coefficients on the same windows.
        """
        inside = dense(windows, *a.shape) > 0
        seen = torch.where(inside, a.flat[:, :, None], -torch.inf)
        winner = torch.from_numpy(seen.numpy().argmax(1))  # NumPy's is the first one
        value, best = pool(a.value), seen.amax(1)
        assert torch.equal(value.flatten(1), best)
        second = seen.scatter(1, winner[:, None], -torch.inf).amax(1)
        close = (best - second < 1e-12) & (best != 0)  # rounding decides
        doubt, nothing = float("inf") if close.any() else 0.0, torch.zeros_like(a.flat)

        def share(R: Tensor) -> Shared:
            return unchanged(nothing.scatter_add(1, winner, R))._replace(doubt=doubt)

        return self._record([a], value, share)

    def normalise(self, norm: nn.Module, a: Node, rows: int) -> Node:
        """LayerNorm and the like with the scale held constant: epsilon rule for (a - mean) / s.

        Args:
            rows: how many sets of values an image has that are normalised by themselves.
        """
        flat = a.value.reshape(len(a.value) * rows, -1)
        N = flat.shape[1]
        mean = flat.sum(1, keepdim=True) / N
        s = (((flat - mean) ** 2).sum(1, keepdim=True) / N + norm.eps).sqrt()
        c = flat[:, :, None] * (torch.eye(N, dtype=flat.dtype) - 1 / N) / s[:, :, None]
        places = (1, 1) if isinstance(norm, nn.GroupNorm) else ()  # its channels come first
        weight, bias = (p.reshape(*p.shape, *places) for p in (norm.weight, norm.bias))
        value = c.sum(1).reshape(a.value.shape) * weight + bias

        def share(R: Tensor) -> Shared:
            inputs, _, at_zero, doubt = stabilised(R.reshape(-1, N), c)
            at_zero = at_zero.reshape(-1, rows).sum(1)
            return Shared(inputs.reshape(len(R), -1), torch.zeros(len(R)), at_zero, doubt)

        return self._record([a], value, share, self.names.get(norm, ""))

    def conv(self, conv: nn.Conv2d, a: Node, norm: nn.Module | None = None) -> Node:
        """A convolution, perhaps with the BatchNorm behind it."""
        weight, bias = geometry.fused(conv, norm)
        image, edges = a.image, geometry.edges(conv, a.shape)
        if conv.padding_mode != "zeros":  # copies of values, which lie beside the convolution
            a, edges = self.route(lambda x, e=edges: F.pad(x, e, conv.padding_mode), a), [0] * 4

        def apply(x: Tensor, w: Tensor = weight) -> Tensor:
            x = F.pad(x, edges)
            return F.conv2d(x, w, None, conv.stride, 0, conv.dilation, conv.groups)

        name, shape = self.names.get(conv, ""), apply(a.value).shape
        bias = bias.repeat_interleave(prod(shape[2:]))
        out = self._weighted(a, apply, weight, bias, image, name)
        self.layers.setdefault(name, []).append(out)
        return out

    def linear(self, linear: nn.Linear, a: Node) -> Node:
        """On vectors with the epsilon rule; on maps (channels last) as a convolution of size 1."""
        weight = linear.weight
        bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias
        if len(a.shape) > 1:
            bias = bias.repeat(prod(a.shape[:-1]))
            return self._weighted(a, F.linear, weight, bias, False, self.names[linear])
        W, flat = weight.T, a.value
        value = (flat[:, :, None] * W).sum(1) + bias

        def share(R: Tensor) -> Shared:
            return stabilised(R, flat[:, :, None] * W, bias)

        return self._record([a], value, share, self.names[linear])

    def _weighted(
        self, a: Node, apply: Any, weight: Tensor, bias: Tensor, image: bool, name: str
    ) -> Node:
        W = dense(lambda x: apply(x, weight), *a.shape)
        seen = dense(lambda x: apply(x, torch.ones_like(weight)), *a.shape)
        value = (a.flat[:, :, None] * W).sum(1) + bias

        def share(R: Tensor) -> Shared:
            if image and self.box:
                return box(R, a.flat, W)
            return self.rule(R, a.flat, W, seen, bias)

        return self._record([a], value.reshape(apply(a.value, weight).shape), share, name)

    def walk_back(self) -> None:
        for back in reversed(self.steps):
            back()

    def shares(self, layer: str) -> Tensor:
        """(B, C) of a layer, which may have been used at several places."""
        R = [node.relevance for node in self.layers[layer]]
        total = sum(r.abs().sum((1, 2, 3)) for r in R)[:, None]
        part = sum(positive(r).sum((2, 3)) for r in R)
        return torch.where(total > 0, part / torch.where(total > 0, total, 1), 0)
