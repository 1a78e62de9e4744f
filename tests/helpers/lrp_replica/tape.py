"""Records the layers of a network."""

from __future__ import annotations

from functools import partial
from math import prod

import torch
from tests.helpers.lrp_replica import geometry
from tests.helpers.lrp_replica.recorder import Node, Operation, Recorder, dense
from tests.helpers.lrp_replica.shares import CONVOLUTIONS, Shared, box, positive, stabilised
from torch import Tensor, nn
from torch.nn import functional as F


class Tape(Recorder):
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
        super().__init__()
        self.names = {module: name for name, module in network.named_modules()}
        self.rule, self.box = partial(CONVOLUTIONS[rule], **options), box
        self.layers: dict[str, list[Node]] = {}
        self.inputs: dict[str, Node] = {}  # of linear layers

    def normalise(self, norm: nn.Module, a: Node, rows: int) -> Node:
        """LayerNorm and the like with the scale held constant: epsilon rule, the bias absorbs.

        Args:
            rows: how many sets of values an image has that are normalised by themselves.
        """
        flat = a.value.reshape(len(a.value) * rows, -1)
        N = flat.shape[1]
        mean = flat.sum(1, keepdim=True) / N
        s = (((flat - mean) ** 2).sum(1, keepdim=True) / N + norm.eps).sqrt()
        places = (1, 1) if isinstance(norm, nn.GroupNorm) else ()  # its channels come first
        weight, bias = (
            torch.full_like(flat, without)
            if p is None
            else p.reshape(*p.shape, *places).expand(a.value.shape).reshape(flat.shape)
            for p, without in ((norm.weight, 1.0), (norm.bias, 0.0))
        )
        # Of every value to every value of its row.
        c = flat[:, :, None] * (torch.eye(N, dtype=flat.dtype) - 1 / N) / s[:, :, None]
        c = c * weight[:, None]
        value = (c.sum(1) + bias).reshape(a.value.shape)

        def share(R: Tensor) -> Shared:
            inputs, *lost, doubt = stabilised(R.reshape(-1, N), c, bias)
            to_bias, at_zero = (part.reshape(-1, rows).sum(1) for part in lost)
            return Shared(inputs.reshape(len(R), -1), to_bias, at_zero, doubt)

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
            out = self._weighted(a, F.linear, weight, bias, False, self.names[linear])
            self.layers.setdefault(self.names[linear], []).append(out)
            self.inputs[self.names[linear]] = a
            return out
        W, flat = weight.T, a.value
        value = (flat[:, :, None] * W).sum(1) + bias

        def share(R: Tensor) -> Shared:
            return stabilised(R, flat[:, :, None] * W, bias)

        return self._record([a], value, share, self.names[linear])

    def _weighted(
        self, a: Node, apply: Operation, weight: Tensor, bias: Tensor, image: bool, name: str
    ) -> Node:
        W = dense(lambda x: apply(x, weight), *a.shape)
        seen = dense(lambda x: apply(x, torch.ones_like(weight)), *a.shape)
        value = (a.flat[:, :, None] * W).sum(1) + bias

        def share(R: Tensor) -> Shared:
            if image and self.box:
                return box(R, a.flat, W)
            return self.rule(R, a.flat, W, seen, bias)

        return self._record([a], value.reshape(apply(a.value, weight).shape), share, name)

    def shares_of_rows(self, layer: str, first: int, width: int) -> Tensor:
        """(B, width) of some outputs of a linear layer on tokens."""
        (node,) = self.layers[layer]
        R = node.relevance.flatten(1, -2)[..., first : first + width]
        total = R.abs().sum((1, 2))[:, None]
        return positive(R).sum(1) / torch.where(total > 0, total, 1)

    def shares_of_heads(self, layer: str, heads: int) -> Tensor:
        """(B, heads) of what enters an output projection."""
        R = self.inputs[layer].relevance
        R = R.reshape(len(R), -1, heads, R.shape[-1] // heads)
        total = R.abs().sum((1, 2, 3))[:, None]
        return positive(R).sum((1, 3)) / torch.where(total > 0, total, 1)

    def shares(self, layer: str) -> Tensor:
        """(B, C) of a layer, which may have been used at several places."""
        R = [node.relevance for node in self.layers[layer]]
        total = sum(r.abs().sum((1, 2, 3)) for r in R)[:, None]
        part = sum(positive(r).sum((2, 3)) for r in R)
        return torch.where(total > 0, part / torch.where(total > 0, total, 1), 0)
