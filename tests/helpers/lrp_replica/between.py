"""A block that holds one operation between two convolutions, and what it may hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tests.helpers.lrp_replica.parts import PARTS
from tests.helpers.lrp_replica.places import PLACES
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.reuse import REUSE
from tests.helpers.lrp_replica.tape import Tape
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.std_conv import ScaledStdConv2d
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth, stochastic_depth


class Between(nn.Module):
    """A convolution of four channels, perhaps a ReLU, the operation, and another convolution.

    Args:
        kind: the method of the tape by which the operation is replayed, or "replay", if it has its
            own.
        make: what makes the operation for four channels: a module or a function.
    """

    def __init__(
        self, kind: str, make: Callable[[], Any], width: int, out: int, stride: int
    ) -> None:
        super().__init__()
        self.before, self.norm = nn.Conv2d(width, 4, 3, stride, 1, bias=False), nn.BatchNorm2d(4)
        self.kind, self.rectified, made = kind, bool(torch.rand(()) < 0.5), make()
        # Of a max pool also an average pool on the same windows is given.
        self.middle, self.windows = made if isinstance(made, tuple) else (made, None)
        self.behind = nn.Conv2d(self.middle(torch.zeros(2, 4, 6, 6)).shape[1], out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.before(x))
        return self.behind(self.middle(torch.relu(x) if self.rectified else x))

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.conv(self.before, a, self.norm)
        a = tape.passes(torch.relu, a) if self.rectified else a
        if self.kind == "replay":
            a = self.middle.replay(tape, a)
        elif self.kind == "largest":
            a = tape.largest(self.middle, self.windows, a)
        else:
            a = getattr(tape, self.kind)(self.middle, a)
        return tape.conv(self.behind, a)


Make = Callable[[], Any]


def function(operation: Callable[..., Tensor], **options: Any) -> Make:
    """Makes this function, or a function with some arguments given."""
    return lambda: partial(operation, **options)


CONVOLUTIONS: dict[str, Make] = {
    "grouped": partial(nn.Conv2d, 4, 6, 3, padding=1, groups=2),
    "depthwise": partial(nn.Conv2d, 4, 8, (3, 2), (1, 2), (1, 0), groups=4),
    "dilated": partial(nn.Conv2d, 4, 3, (2, 3), padding=(1, 2), dilation=(1, 2)),
    "strided": partial(nn.Conv2d, 4, 3, 2, (3, 2), 1),
    "same": partial(nn.Conv2d, 4, 3, (2, 3), padding="same", dilation=(1, 2)),
    "valid": partial(nn.Conv2d, 4, 3, (1, 2), padding="valid"),
    "reflect": partial(nn.Conv2d, 4, 3, 3, 2, 1, padding_mode="reflect"),
    "replicate": partial(nn.Conv2d, 4, 4, 3, 1, (2, 1), groups=2, padding_mode="replicate"),
    "circular": partial(nn.Conv2d, 4, 3, (2, 3), 1, 1, padding_mode="circular"),
    "same replicate": partial(nn.Conv2d, 4, 3, (2, 3), padding="same", padding_mode="replicate"),
    "tensorflow same": partial(Conv2dSame, 4, 4, (3, 2), 2, dilation=(1, 2), groups=2),
    "standardised": partial(ScaledStdConv2d, 4, 3, 3, gamma=1.7, gain_init=0.6),
}

PASSES: dict[str, Make] = {
    "relu": partial(nn.ReLU, inplace=True),
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": function(torch.sigmoid),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "gelu function": function(F.gelu, approximate="tanh"),
    "leaky": partial(nn.LeakyReLU, 0.2, inplace=True),
    "leaky function": function(F.leaky_relu, negative_slope=0.3),
    "elu": function(F.elu),
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "prelu": partial(nn.PReLU, 4),
    "dropout": partial(nn.Dropout2d, 0.9),
    "dropout function": function(F.dropout, p=0.9, training=False),
    "stochastic depth": partial(StochasticDepth, 0.9, "row"),
    "stochastic function": function(stochastic_depth, p=0.9, mode="batch", training=False),
    "identity": nn.Identity,
    "negative": function(torch.neg),
    "half": lambda: lambda x: x / 2,
    "norm elsewhere": lambda: nn.Sequential(nn.Identity(), nn.BatchNorm2d(4)),
}

ROUTES: dict[str, Make] = {
    "concat": lambda: lambda x: torch.cat([x, x.flip(3), x[:, :1]], 1),
    "chunk": lambda: lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "split": lambda: lambda x: x.split([1, 3], 1)[1],
    "unbind": lambda: lambda x: torch.stack([torch.unbind(x, 1)[i] for i in (2, 0, 2)], 1),
    "index": lambda: lambda x: x[:, 1:, ::2],
    "permute": lambda: lambda x: x.permute(0, 1, 3, 2),
    "transpose": lambda: lambda x: x.transpose(2, 3).contiguous(),
    "stack": lambda: lambda x: torch.stack([x, x.roll(1, 2)], 2).flatten(1, 2),
    "reshape": lambda: lambda x: x.reshape(x.size(0), 2, x.shape[2] * 2, -1),
    "repeat": lambda: lambda x: x.repeat(1, 1, 2, 1),
    "expand": lambda: lambda x: x[:, :, :1].expand(-1, -1, 3, -1),
    "unsqueeze": lambda: lambda x: x.unsqueeze(1).squeeze(1),
    "pixel shuffle": partial(nn.PixelShuffle, 2),
    "pixel unshuffle": lambda: lambda x: F.pixel_unshuffle(x.repeat(1, 1, 2, 2), 2),
    "channel shuffle": partial(nn.ChannelShuffle, 2),
    "reflect pad": partial(nn.ReflectionPad2d, (1, 0, 0, 1)),
    "replicate pad": partial(nn.ReplicationPad2d, 2),
    "circular pad": partial(nn.CircularPad2d, (1, 1, 1, 0)),
}

MIXTURES: dict[str, Make] = {
    "average": partial(nn.AvgPool2d, 3, 1, 1),
    "average of what is there": partial(nn.AvgPool2d, 3, 2, 1, count_include_pad=False),
    "average to the edge": partial(nn.AvgPool2d, 2, 2, ceil_mode=True),
    "average function": function(F.avg_pool2d, kernel_size=(1, 2), stride=1, divisor_override=3),
    "adaptive": partial(nn.AdaptiveAvgPool2d, (2, 3)),
    "adaptive function": function(F.adaptive_avg_pool2d, output_size=(None, 2)),
    "mean": lambda: lambda x: x.mean((2, 3), keepdim=True),
    "mean of rows": function(torch.mean, dim=2, keepdim=True),
    "sum of columns": lambda: lambda x: x.sum(3, keepdim=True),
    "nearest": function(F.interpolate, scale_factor=(2, 1)),
    "bilinear": function(F.interpolate, size=(5, 4), mode="bilinear"),
    "bilinear by size": lambda: (
        lambda x: F.interpolate(
            x, size=(x.shape[2] + 1, x.size(3) * 2), mode="bilinear", align_corners=True
        )
    ),
    "bicubic": partial(nn.Upsample, (5, 6), mode="bicubic"),
}

LARGEST: dict[str, Make] = {
    "max": lambda: (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)),
    "max to the edge": lambda: (nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2, ceil_mode=True)),
    "max function": lambda: (partial(F.max_pool2d, kernel_size=(1, 2)), nn.AvgPool2d((1, 2))),
    "max adaptive": lambda: (nn.AdaptiveMaxPool2d(2), nn.AdaptiveAvgPool2d(2)),
}

#: By name: of (width, channels out, stride).
BLOCKS = {
    name: partial(Between, kind, make)
    for kind, table in (
        ("conv", CONVOLUTIONS),
        ("passes", PASSES),
        ("route", ROUTES),
        ("mixture", MIXTURES),
        ("largest", LARGEST),
        ("replay", PARTS | PLACES | REUSE),
    )
    for name, make in table.items()
}
