"""Random small networks, and what the tape says of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from tests.helpers.lrp_replica import between, blocks
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.tape import Tape
from torch import Tensor, nn

NORMS = nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm
BLOCKS = blocks.BLOCKS | between.BLOCKS


class Stem(nn.Module):
    def __init__(self, width: int, pool: nn.Module | None = None, **conv: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, bias=False, **conv)
        self.norm, self.relu, self.pool = nn.BatchNorm2d(width), nn.ReLU(inplace=True), pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        return x if self.pool is None else self.pool(x)

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.passes(self.relu, tape.conv(self.conv, a, self.norm))
        if isinstance(self.pool, nn.MaxPool2d):
            size = self.pool.kernel_size, self.pool.stride, self.pool.padding
            return tape.largest(self.pool, nn.AvgPool2d(*size), a)
        return a if self.pool is None else tape.mixture(self.pool, a)


class Pooled(nn.Module):
    """As in ResNet."""

    def __init__(self, width: int, pooled: int) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(pooled), nn.Linear(width * pooled**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(x), 1))

    def replay(self, tape: Tape, a: Node) -> Node:
        return tape.linear(self.fc, tape.route(nn.Flatten(), tape.mixture(self.pool, a)))


class Perceptron(nn.Module):
    """As in ConvNeXt and VGG: a norm and two linear layers on vectors."""

    def __init__(self, width: int, pooled: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.one, self.two = nn.Linear(width, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(self.norm(x.mean((2, 3))))))

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.normalise(self.norm, tape.mixture(lambda x: x.mean((2, 3)), a), rows=1)
        return tape.linear(self.two, tape.passes(torch.relu, tape.linear(self.one, a)))


class Convolutional(nn.Module):
    """As in SqueezeNet: a convolution gives the logit of every place."""

    def __init__(self, width: int, pooled: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.adaptive_avg_pool2d(torch.relu(self.conv(x)), 1)
        return x.view(x.size(0), -1)

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.passes(torch.relu, tape.conv(self.conv, a))
        return tape.mixture(lambda x: x.mean((2, 3)), a)


HEADS = {"pooled": Pooled, "perceptron": Perceptron, "convolutional": Convolutional}


class Network(nn.Module):
    def __init__(self, stem: Stem, blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.Sequential(*blocks), head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))

    def replay(self, tape: Tape, a: Node) -> Node:
        for part in (self.stem, *self.blocks, self.head):
            a = part.replay(tape, a)
        return a


def network(
    kinds: list[tuple[str, int, int]],
    seed: int = 0,
    width: int = 3,
    pooled: int = 1,
    pool: nn.Module | None = None,
    head: str = "pooled",
    **stem: Any,
) -> Network:
    """A random network in float64, in eval mode; kinds: (block, channels out, stride)."""
    torch.manual_seed(seed)
    made, first = [], width
    for kind, out, stride in kinds:
        made.append(BLOCKS[kind](width, out, stride))
        width = out
    stem = {"kernel_size": 3, "stride": 1, "padding": 1} | stem
    found = Network(Stem(first, pool, **stem), made, HEADS[head](width, pooled))
    for module in found.modules():
        if isinstance(module, NORMS) and module.weight is not None:
            nn.init.normal_(module.weight)  # negative ones among them: fusion flips signs
            nn.init.normal_(module.bias, std=0.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return found.double().eval()


class Explained(NamedTuple):
    """What an `Explanation` holds, by the tape; and by how much contributions cancel at most."""

    logit: Tensor
    shares: Tensor
    ledger: Tensor
    pixels: Tensor
    accounts: list[str]
    doubt: float


@torch.no_grad()
def explain(
    made: nn.Module,
    images: Tensor,
    layers: list[str],
    sign: float | Tensor = 1.0,
    box: bool = True,
    **rule: Any,
) -> Explained:
    """Explain the logit, with the shares of these layers."""
    tape, start = Tape(made, box=box, **rule), Node(images.double(), image=True)
    logit = made.replay(tape, start)
    logit.relevance += torch.as_tensor(sign).expand(len(images))[:, None]
    tape.walk_back()
    shares = torch.cat([tape.shares(layer) for layer in layers], 1)
    ledger = torch.stack([tape.lines[i] for i in range(len(tape.accounts))], 1)
    return Explained(logit.value[:, 0], shares, ledger, start.relevance, tape.accounts, tape.doubt)


@torch.no_grad()
def outputs(made: nn.Module, images: Tensor, layer: str) -> Tensor:
    """(B, C, H, W) of a convolution with the BatchNorm behind it, where it was used last."""
    tape = Tape(made)
    made.replay(tape, Node(images.double()))
    return tape.layers[layer][-1].value


@torch.no_grad()
def explain_maximum(
    made: nn.Module, images: Tensor, layer: str, channels: list[int], box: bool = True
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Value, place and pixel relevance of where a channel is most active, and the doubt."""
    tape, start = Tape(made, box=box), Node(images.double(), image=True)
    made.replay(tape, start)
    node = tape.layers[layer][-1]
    values, places = [], []
    for maps, relevance, channel in zip(node.value, node.relevance, channels, strict=True):
        best, where = -torch.inf, (0, 0)
        for x in range(maps.shape[2]):  # by columns, as released
            for y in range(maps.shape[1]):
                if maps[channel, y, x] > best:
                    best, where = maps[channel, y, x].item(), (y, x)
        values.append(max(best, 0.0))
        places.append(where)
        relevance[channel, where[0], where[1]] = float(best > 0)
    tape.walk_back()
    return node.value.new_tensor(values), torch.tensor(places), start.relevance, tape.doubt
