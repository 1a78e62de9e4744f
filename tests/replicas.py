"""Relevance by explicit sums over dense matrices in NumPy: slow, and independent of the engine.

No autograd and no convolution routine: a convolution is the matrix that loops write down. Each
small network says twice what it does: `forward` to torch, `replay` to the tape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

Array = NDArray[np.float64]

EPSILON = float(np.float32(1e-6))
LOW = float(np.float32(0 - np.float32(0.485)) / np.float32(0.229))
HIGH = float(np.float32(1 - np.float32(0.406)) / np.float32(0.225))


def away_from_zero(z: Array) -> Array:
    return np.where(z < 0, z - EPSILON, z + EPSILON)


def pairs(x: Any) -> tuple[int, int]:
    return x if isinstance(x, tuple) else (x, x)


def windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, same: bool = False
) -> list[list[tuple[int, int]]]:
    """For each output position along one axis the (tap, input position) that lie inside."""
    reach = (kernel - 1) * dilation + 1
    if same:
        count = -(-size // stride)
        before = max((count - 1) * stride + reach - size, 0) // 2
    else:
        count, before = (size + 2 * padding - reach) // stride + 1, padding
    return [
        [
            (tap, at)
            for tap in range(kernel)
            if 0 <= (at := out * stride - before + tap * dilation) < size
        ]
        for out in range(count)
    ]


def axes(module: Any, shape: tuple[int, ...]) -> list[list[list[tuple[int, int]]]]:
    geometry = [pairs(getattr(module, k, 1)) for k in ("kernel_size", "stride", "padding")]
    dilation, same = pairs(getattr(module, "dilation", 1)), isinstance(module, Conv2dSame)
    return [windows(shape[i], *(pair[i] for pair in geometry), dilation[i], same) for i in range(2)]


def taps(module: Any, shape: tuple[int, ...]) -> Iterator[tuple[int, int, list[Any]]]:
    rows, columns = axes(module, shape)
    for (y, row), (x, column) in product(enumerate(rows), enumerate(columns)):
        yield y, x, list(product(row, column))


def fused(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Array, Array]:
    weight = conv.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if conv.bias is None else conv.bias.detach().double().numpy()
    if norm is None:
        return weight, bias
    gamma, beta, mean, variance = (
        t.detach().double().numpy()
        for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    scale = gamma / np.sqrt(variance + norm.eps)
    return weight * scale[:, None, None, None], (bias - mean) * scale + beta


def matrix(conv: nn.Conv2d, weight: Array, shape: tuple[int, ...]) -> tuple[Array, Any]:
    """The convolution as a matrix (outputs, inputs)."""
    rows, columns = axes(conv, shape[1:])
    out = (conv.out_channels, len(rows), len(columns))
    dense = np.zeros((*out, *shape))
    width, group = weight.shape[1], conv.out_channels // conv.groups
    for y, x, inside in taps(conv, shape[1:]):
        for (i, at), (j, to) in inside:
            for o, c in product(range(conv.out_channels), range(width)):
                dense[o, y, x, o // group * width + c, at, to] += weight[o, c, i, j]
    return dense.reshape(np.prod(out), np.prod(shape)), out


class Node:
    def __init__(self, value: Array) -> None:
        self.value, self.relevance = value, np.zeros_like(value)


class Tape:
    """Records what a network did, then walks back."""

    def __init__(self, network: nn.Module, box: bool = False) -> None:
        self.names = {module: name for name, module in network.named_modules()}
        self.box = box
        self.steps: list[Callable[[], None]] = []
        self.convolutions: dict[str, Node] = {}

    def _step(self, out: Node, back: Callable[[], None]) -> Node:
        self.steps.append(back)
        return out

    def conv(self, a: Node, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> Node:
        weight, bias = fused(conv, norm)
        W, shape = matrix(conv, weight, a.value.shape[1:])
        flat = a.value.reshape(len(a.value), -1)
        y = (flat @ W.T).reshape(-1, *shape) + bias[:, None, None]
        out, first = Node(y), not self.convolutions
        self.convolutions[self.names[conv]] = out
        positive, negative = np.where(W > 0, W, 0), np.where(W < 0, W, 0)

        def back() -> None:
            R = out.relevance.reshape(len(flat), -1)
            if first and self.box:
                low, high = np.full_like(flat, LOW), np.full_like(flat, HIGH)
                z = flat @ W.T - low @ positive.T - high @ negative.T
                q = R / away_from_zero(z)
                share = flat * (q @ W) - low * (q @ positive) - high * (q @ negative)
            else:
                up, down = np.where(flat > 0, flat, 0), np.where(flat < 0, flat, 0)
                z = up @ positive.T + down @ negative.T
                q = R / (z + 1e-12 * (z == 0))
                share = up * (q @ positive) + down * (q @ negative)
            a.relevance += share.reshape(a.value.shape)

        return self._step(out, back)

    def _pass(self, a: Node, value: Array) -> Node:
        out = Node(value)

        def back() -> None:
            a.relevance += out.relevance.reshape(a.value.shape)

        return self._step(out, back)

    def relu(self, a: Node) -> Node:
        return self._pass(a, np.where(a.value > 0, a.value, 0))

    def silu(self, a: Node) -> Node:
        return self._pass(a, a.value / (1 + np.exp(-a.value)))

    def flatten(self, a: Node) -> Node:
        return self._pass(a, a.value.reshape(len(a.value), -1))

    def gate(self, a: Node, gate: Array) -> Node:
        return self._pass(a, a.value * gate)

    def add(self, u: Node, v: Node) -> Node:
        out = Node(u.value + v.value)

        def back() -> None:
            for part in (u, v):
                part.relevance += part.value * out.relevance / away_from_zero(out.value)

        return self._step(out, back)

    def linear(self, a: Node, linear: nn.Linear) -> Node:
        weight = linear.weight.detach().double().numpy()
        bias = 0 if linear.bias is None else linear.bias.detach().double().numpy()
        out = Node(np.einsum("ni,oi->no", a.value, weight) + bias)

        def back() -> None:
            q = out.relevance / away_from_zero(out.value)
            a.relevance += np.einsum("ni,oi,no->ni", a.value, weight, q)

        return self._step(out, back)

    def max_pool(self, a: Node, pool: nn.MaxPool2d) -> Node:
        rows, columns = axes(pool, a.value.shape[2:])
        out = Node(np.zeros((*a.value.shape[:2], len(rows), len(columns))))
        winners = {}
        for n, c in np.ndindex(*a.value.shape[:2]):
            for y, x, inside in taps(pool, a.value.shape[2:]):
                # `max` keeps the first of equal values.
                winner = max(((at, to) for (_, at), (_, to) in inside), key=a.value[n, c].item)
                winners[n, c, y, x] = (n, c, *winner)
                out.value[n, c, y, x] = a.value[n, c][winner]

        def back() -> None:
            for place, winner in winners.items():
                a.relevance[winner] += out.relevance[place]

        return self._step(out, back)

    def _mean(self, a: Node, cells: list[tuple[int, int, list[tuple[int, int]], int]]) -> Node:
        """Cells: output row and column, input positions, and the number to divide by."""
        out = Node(np.zeros((*a.value.shape[:2], *(1 + np.max([c[:2] for c in cells], axis=0)))))
        for y, x, inside, count in cells:
            out.value[..., y, x] = sum(a.value[..., at, to] for at, to in inside) / count

        def back() -> None:
            q = out.relevance / away_from_zero(out.value)
            for y, x, inside, count in cells:
                for at, to in inside:
                    a.relevance[..., at, to] += a.value[..., at, to] / count * q[..., y, x]

        return self._step(out, back)

    def average_pool(self, a: Node, pool: nn.AvgPool2d) -> Node:
        count = int(np.prod(pairs(pool.kernel_size)))
        cells = [
            (y, x, [(at, to) for (_, at), (_, to) in inside], count)
            for y, x, inside in taps(pool, a.value.shape[2:])
        ]
        return self._mean(a, cells)

    def adaptive_pool(self, a: Node, pool: nn.AdaptiveAvgPool2d) -> Node:
        def spans(size: int, count: int) -> list[range]:
            return [range(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]

        height, width = pairs(pool.output_size)
        cells = []
        for (y, row), (x, column) in product(
            enumerate(spans(a.value.shape[2], height)), enumerate(spans(a.value.shape[3], width))
        ):
            inside = list(product(row, column))
            cells.append((y, x, inside, len(inside)))
        return self._mean(a, cells)

    def explain(self, logit: Node, sign: float | Array) -> None:
        logit.relevance += np.reshape(np.broadcast_to(sign, len(logit.value)), (-1, 1))
        for back in reversed(self.steps):
            back()

    def shares(self, names: list[str]) -> Array:
        columns = []
        for name in names:
            R = self.convolutions[name].relevance
            total = np.abs(R).sum((1, 2, 3))[:, None]
            positive = np.where(R > 0, R, 0).sum((2, 3))
            columns.append(np.where(total > 0, positive / np.where(total > 0, total, 1), 0))
        return np.concatenate(columns, axis=1)


class Stem(nn.Module):
    def __init__(self, width: int, pool: nn.Module | None = None, **conv: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, bias=False, **conv)
        self.norm, self.relu, self.pool = nn.BatchNorm2d(width), nn.ReLU(inplace=True), pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        return x if self.pool is None else self.pool(x)

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.relu(tape.conv(a, self.conv, self.norm))
        if isinstance(self.pool, nn.MaxPool2d):
            return tape.max_pool(a, self.pool)
        return tape.average_pool(a, self.pool) if isinstance(self.pool, nn.AvgPool2d) else a


class Plain(nn.Module):
    """A convolution with bias, groups and dilation, and no BatchNorm."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        groups = int(np.gcd(width, out))
        self.conv = nn.Conv2d(width, out, 2, stride, 2, dilation=2, groups=groups)
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))

    def replay(self, tape: Tape, a: Node) -> Node:
        return tape.relu(tape.conv(a, self.conv))


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
        return tape.conv(tape.relu(tape.conv(a, self.conv1, self.bn1)), self.conv2, self.bn2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(x)
        out += x if self.down is None else self.down(x)
        return self.relu(out)

    def replay(self, tape: Tape, a: Node) -> Node:
        out = self.replay_branch(tape, a)
        return tape.relu(tape.add(out, a if self.down is None else tape.conv(a, *self.down)))


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
        return tape.conv(tape.relu(super().replay_branch(tape, a)), self.conv3, self.bn3)


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
        self.act, self.gate = nn.SiLU(inplace=True), nn.Sigmoid()
        self.skip, self.gate_first = stride == 1 and width == out, bool(out % 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.expand(x)))
        y = self.act(self.bn2(self.depthwise(y)))
        gate = self.gate(self.restore(self.act(self.reduce(y.mean((2, 3), keepdim=True)))))
        y = self.bn3(self.project(gate * y if self.gate_first else y * gate))
        return x + y if self.skip else y

    def replay(self, tape: Tape, a: Node) -> Node:
        y = tape.silu(tape.conv(a, self.expand, self.bn1))
        y = tape.silu(tape.conv(y, self.depthwise, self.bn2))
        with torch.no_grad():
            mean = torch.from_numpy(y.value.mean((2, 3), keepdims=True))
            inner = self.reduce(mean)
            gate = torch.sigmoid(self.restore(inner * torch.sigmoid(inner))).numpy()
        y = tape.conv(tape.gate(y, gate), self.project, self.bn3)
        return tape.add(a, y) if self.skip else y


class Network(nn.Module):
    def __init__(self, stem: Stem, blocks: list[nn.Module], width: int, pooled: int) -> None:
        super().__init__()
        self.stem, self.blocks = stem, nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(pooled)
        self.fc = nn.Linear(width * pooled**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))

    def replay(self, tape: Tape, a: Node) -> Node:
        a = self.stem.replay(tape, a)
        for block in self.blocks:
            a = block.replay(tape, a)
        return tape.linear(tape.flatten(tape.adaptive_pool(a, self.pool)), self.fc)


BLOCKS = {"plain": Plain, "basic": Basic, "bottleneck": Bottleneck, "inverted": Inverted}


def network(
    kinds: list[tuple[str, int, int]],
    seed: int = 0,
    width: int = 3,
    pooled: int = 1,
    pool: nn.Module | None = None,
    **stem: Any,
) -> Network:
    """A random network in float64, in eval mode; kinds: (block, channels out, stride)."""
    torch.manual_seed(seed)
    blocks, first = [], width
    for kind, out, stride in kinds:
        blocks.append(BLOCKS[kind](width, out, stride))
        width = out
    stem = {"kernel_size": 3, "stride": 1, "padding": 1} | stem
    made = Network(Stem(first, pool, **stem), blocks, width, pooled)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)  # negative ones among them: fusion flips signs
            nn.init.normal_(module.bias, std=0.5)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made.double().eval()


def explain(
    made: Network, images: Tensor, names: list[str], sign: float | Array = 1.0, box: bool = True
) -> tuple[Array, Array, Array]:
    """Logits, shares and pixel relevance by the tape."""
    tape = Tape(made, box)
    start = Node(images.double().numpy())
    logit = made.replay(tape, start)
    tape.explain(logit, sign)
    return logit.value[:, 0], tape.shares(names), start.relevance
