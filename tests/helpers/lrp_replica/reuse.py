"""Small parts, for four channels, that use weights or tensors more than once, or their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.tape import Tape
from torch import Tensor, nn
from torch.nn import functional as F


class OwnWeights(nn.Module):
    """A convolution that is called as a function of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 2, 3, 3)), nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, bias=self.bias, stride=2, padding=1, groups=2)

    def replay(self, tape: Tape, a: Node) -> Node:
        conv = nn.Conv2d(4, 6, 3, 2, 1, groups=2)
        conv.weight, conv.bias = self.weight, self.bias
        return tape.conv(conv, a)


class Twice(nn.Module):
    """One convolution and one ReLU, each at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.relu(self.conv(self.relu(x))) + x

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.conv(self.conv, a)
        b = tape.passes(self.relu, tape.conv(self.conv, tape.passes(self.relu, a)))
        return tape.mixture(torch.add, b, a)


class Overwritten(nn.Module):
    """An activation in place, whose input is used again behind it."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.activation = nn.Conv2d(4, 4, 1), activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.conv(self.activation(x))
        y += x
        return y

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.passes(self.activation, tape.conv(self.conv, a))
        return tape.mixture(torch.add, tape.conv(self.conv, a), a)


REUSE: dict[str, Callable[[], Any]] = {
    "own weights": OwnWeights,
    "twice": Twice,
    "overwritten": partial(Overwritten, nn.ReLU(inplace=True)),
    "overwritten by a function": partial(Overwritten, partial(F.leaky_relu, inplace=True)),
    "overwritten by a method": partial(Overwritten, lambda x: x.relu_()),
}
