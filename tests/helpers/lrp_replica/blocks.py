"""Blocks of well-known networks: ResNet, EfficientNet, ConvNeXt, ShuffleNet, DenseNet."""

from __future__ import annotations

import numpy as np
import torch
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.tape import Tape
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torchvision.ops import Permute, StochasticDepth


class Plain(nn.Module):
    """A convolution with bias, groups and dilation, and no BatchNorm."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        groups = int(np.gcd(width, out))
        self.conv = nn.Conv2d(width, out, 2, stride, 2, dilation=2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))

    def replay(self, tape: Tape, a: Node) -> Node:
        return tape.passes(torch.relu, tape.conv(self.conv, a))


class Basic(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, (1, 3), padding=(0, 1), bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.relu, self.down = nn.ReLU(inplace=True), None
        if stride != 1 or width != out:
            down = nn.Conv2d(width, out, 1, stride, bias=False)
            self.down = nn.Sequential(down, nn.BatchNorm2d(out))

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))

    def replay_branch(self, tape: Tape, a: Node) -> Node:
        a = tape.passes(self.relu, tape.conv(self.conv1, a, self.bn1))
        return tape.conv(self.conv2, a, self.bn2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(x)
        out += x if self.down is None else self.down(x)
        return self.relu(out)

    def replay(self, tape: Tape, a: Node) -> Node:
        out = self.replay_branch(tape, a)
        beside = a if self.down is None else tape.conv(self.down[0], a, self.down[1])
        return tape.passes(self.relu, tape.mixture(torch.add, out, beside))


class Bottleneck(Basic):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__(width, out, stride)
        self.conv1 = nn.Conv2d(width, 2, 1, bias=False)
        self.conv2 = nn.Conv2d(2, 3, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(3, out, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(n) for n in (2, 3, out))

    def branch(self, x: Tensor) -> Tensor:
        return self.bn3(self.conv3(self.relu(super().branch(x))))

    def replay_branch(self, tape: Tape, a: Node) -> Node:
        a = tape.passes(self.relu, super().replay_branch(tape, a))
        return tape.conv(self.conv3, a, self.bn3)


class Inverted(nn.Module):
    """MBConv: expand, depthwise, squeeze-excite, project; values of both signs throughout."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        middle = 2 * width
        self.expand = nn.Conv2d(width, middle, 1, bias=False)
        self.depthwise = Conv2dSame(middle, middle, 3, stride, groups=middle, bias=False)
        self.reduce, self.restore = nn.Conv2d(middle, 1, 1), nn.Conv2d(1, middle, 1)
        self.project = nn.Conv2d(middle, out, 1, bias=False)
        self.bn1, self.bn2 = (nn.BatchNorm2d(middle, eps=1e-3) for _ in range(2))
        self.bn3 = nn.BatchNorm2d(out, eps=1e-3)
        self.act = nn.SiLU(inplace=True)
        self.skip, self.gate_first = stride == 1 and width == out, bool(out % 2)

    def gate(self, y: Tensor) -> Tensor:
        return torch.sigmoid(self.restore(self.act(self.reduce(y.mean((2, 3), keepdim=True)))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.expand(x)))
        y = self.act(self.bn2(self.depthwise(y)))
        y = self.bn3(self.project(self.gate(y) * y if self.gate_first else y * self.gate(y)))
        return x + y if self.skip else y

    def replay(self, tape: Tape, a: Node) -> Node:
        y = tape.passes(self.act, tape.conv(self.expand, a, self.bn1))
        y = tape.passes(self.act, tape.conv(self.depthwise, y, self.bn2))
        y = tape.conv(self.project, tape.passes(lambda y: y * self.gate(y), y), self.bn3)
        return tape.mixture(torch.add, a, y) if self.skip else y


class ConvNeXt(nn.Module):
    """LayerNorm and linear layers on a map with channels last, and a scale of each channel."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, out, 2, stride, 1)
        self.depthwise = nn.Conv2d(out, out, 5, padding=2, groups=out)
        self.last, self.first = Permute([0, 2, 3, 1]), Permute([0, 3, 1, 2])
        self.norm, self.act = nn.LayerNorm(out, eps=1e-3), nn.GELU()
        self.widen, self.narrow = nn.Linear(out, 2 * out), nn.Linear(2 * out, out, bias=False)
        self.scale = nn.Parameter(torch.randn(out, 1, 1))
        self.drop = StochasticDepth(0.5, "row")

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        y = self.norm(self.last(self.depthwise(x)))
        y = self.first(self.narrow(self.act(self.widen(y))))
        y = self.drop(self.scale * y)
        y += x
        return y

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.conv(self.down, a)
        y = tape.route(self.last, tape.conv(self.depthwise, a))
        y = tape.normalise(self.norm, y, rows=y.shape[0] * y.shape[1])
        y = tape.linear(self.narrow, tape.passes(self.act, tape.linear(self.widen, y)))
        y = tape.passes(lambda y: self.drop(self.scale * y), tape.route(self.first, y))
        return tape.mixture(torch.add, y, a)


class Shuffle(nn.Module):
    """ShuffleNet: half of the channels pass by; shuffled by arithmetic on sizes."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, 4, 1, stride), nn.Conv2d(2, 2, 3, padding=1)
        self.conv3, self.norm = nn.Conv2d(4, out, 1), nn.BatchNorm2d(2)

    def shuffle(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width)
        return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.conv1(x).chunk(2, dim=1)
        together = torch.cat((one, torch.relu(self.norm(self.conv2(two)))), 1)
        return self.conv3(self.shuffle(together))

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.conv(self.conv1, a)
        one, two = (tape.route(lambda x, i=i: x[:, 2 * i : 2 * i + 2], a) for i in range(2))
        two = tape.passes(torch.relu, tape.conv(self.conv2, two, self.norm))
        together = tape.route(lambda u, v: self.shuffle(torch.cat((u, v), 1)), one, two)
        return tape.conv(self.conv3, together)


class DenseLayer(nn.Module):
    """DenseNet: BatchNorm before the convolution, and everything before beside what is new."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, 2, 3, padding=1)
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True)
        self.transition = nn.Conv2d(width + 2, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv(torch.relu(self.norm(x)))
        return self.pool(self.transition(torch.cat([x, new], 1)))

    def replay(self, tape: Tape, a: Node) -> Node:
        new = tape.conv(self.conv, tape.passes(lambda x: torch.relu(self.norm(x)), a))
        together = tape.route(lambda u, v: torch.cat([u, v], 1), a, new)
        return tape.mixture(self.pool, tape.conv(self.transition, together))


#: By name: of (width, channels out, stride).
BLOCKS = {
    "plain": Plain,
    "basic": Basic,
    "bottleneck": Bottleneck,
    "inverted": Inverted,
    "convnext": ConvNeXt,
    "shuffle": Shuffle,
    "dense": DenseLayer,
}
