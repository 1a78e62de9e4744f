"""Small parts that move or mix places, for four channels: pads, blurs, ties of a max pool."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.tape import Tape
from timm.layers.blur_pool import BlurPool2d
from torch import Tensor, nn
from torch.nn import functional as F


class Pad(nn.Module):
    """Pads with values that are no copies, or may not be: what lands on them is lost."""

    def __init__(self, pad: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        return self.pad(x)

    def replay(self, tape: Tape, a: Node) -> Node:
        return tape.route(self.pad, a, account=tape.names.get(self.pad, ""))


class Copies(nn.Module):
    """Values of which each stands at four places, and a max pool: the first place counts."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d((2, 3), 2, (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.interpolate(x, scale_factor=2))

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.mixture(lambda x: F.interpolate(x, scale_factor=2), a)
        return tape.largest(self.pool, nn.AvgPool2d((2, 3), 2, (0, 1)), a)


class Blur(nn.Module):
    """Anti-aliasing by a filter for as many channels as there are: no layer, but a mixture."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.filter = nn.Parameter(taps[:, None] * taps)

    def blur(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.filter.expand(channels, 1, 3, 3), stride=2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.blur(F.pad(x, (1, 1, 1, 1), mode="reflect"))

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.route(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), a, account="")
        return tape.mixture(self.blur, a)


class BlurLayer(nn.Module):
    """As a layer for four channels, it has the rule of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = BlurPool2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.blur(x)

    def replay(self, tape: Tape, a: Node) -> Node:
        conv = nn.Conv2d(4, 4, 3, 2, groups=4, bias=False)
        conv.weight = nn.Parameter(self.blur.filt)
        a = tape.route(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), a, account="")
        return tape.conv(conv, a)


PLACES: dict[str, Callable[[], Any]] = {
    "zero pad": lambda: Pad(nn.ZeroPad2d((1, 0, 2, -1))),
    "constant pad": lambda: Pad(nn.ConstantPad2d((1, 2, 0, 1), 0.7)),
    "pad": lambda: Pad(partial(F.pad, pad=(1, 1, 0, 1), value=-0.3)),
    "reflecting pad": lambda: Pad(partial(F.pad, pad=(1, 0, 1, 1), mode="reflect")),
    "crop": lambda: Pad(partial(F.pad, pad=(-1, 0, 1, 0))),
    "copies": Copies,
    "blur": Blur,
    "blur layer": BlurLayer,
}
