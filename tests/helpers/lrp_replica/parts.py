"""Small parts of networks, for four channels: norms, gates and sums."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.tape import Tape
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import LayerNorm2d


class ChannelNorm(nn.Module):
    """LayerNorm of the channels at every place, by torchvision or timm."""

    def __init__(self, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = make(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def replay(self, tape: Tape, a: Node) -> Node:
        last = tape.route(lambda x: x.permute(0, 2, 3, 1), a)
        last = tape.normalise(self.norm, last, rows=last.shape[0] * last.shape[1])
        return tape.route(lambda x: x.permute(0, 3, 1, 2), last)


class GroupNorm(nn.Module):
    def __init__(self, make: Callable[..., nn.Module], *size: int) -> None:
        super().__init__()
        self.norm = make(*size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def replay(self, tape: Tape, a: Node) -> Node:
        return tape.normalise(self.norm, a, rows=self.norm.num_groups)


class NormAct(nn.Module):
    """timm's BatchNorm, which carries the activation behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 2)
        self.folded, self.elsewhere = BatchNormAct2d(4, act_layer=nn.SiLU), BatchNormAct2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.elsewhere(self.folded(self.conv(x)))

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.passes(self.folded.act, tape.conv(self.conv, a, self.folded))
        return tape.passes(self.elsewhere, a)


class ChannelsLast(nn.Module):
    """Linear layers at every place of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)

    def replay(self, tape: Tape, a: Node) -> Node:
        a = tape.linear(self.one, tape.route(lambda x: x.permute(0, 2, 3, 1), a))
        a = tape.linear(self.two, tape.passes(torch.relu, a))
        return tape.route(lambda x: x.permute(0, 3, 1, 2), a)


class Gate(nn.Module):
    """A product with a gate, which gets no relevance.

    Args:
        product: of the map and its gate.
        bounded: makes the gate from a map of one place, or of all if `places`.
    """

    def __init__(
        self,
        product: Callable[[Tensor, Tensor], Tensor] = torch.mul,
        bounded: Callable[[Tensor], Tensor] = torch.sigmoid,
        places: bool = False,
    ) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.product, self.bounded, self.places = product, bounded, places

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.places else F.adaptive_avg_pool2d(x, 1)
        return self.product(x, self.bounded(self.excite(F.relu(self.squeeze(y), inplace=True))))

    def replay(self, tape: Tape, a: Node) -> Node:
        return tape.passes(self, a)


class Sum(nn.Module):
    """Two tensors put together, one of which is made of the other."""

    def __init__(self, make: Callable[[Tensor], Tensor], put: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv, self.make, self.put = nn.Conv2d(4, 4, 1), make, put

    def forward(self, x: Tensor) -> Tensor:
        return self.put(x, self.make(self.conv(x)))

    def replay(self, tape: Tape, a: Node) -> Node:
        return tape.mixture(self.put, a, tape.mixture(self.make, tape.conv(self.conv, a)))


class Constant(nn.Module):
    """Put together with a parameter, which gets nothing; a sum has an account in the ledger."""

    def __init__(self, put: Callable[..., Tensor], account: str | None) -> None:
        super().__init__()
        self.constant, self.put = nn.Parameter(torch.randn(4, 1, 1)), put
        self.account = account

    def forward(self, x: Tensor) -> Tensor:
        return self.put(x, self.constant)

    def replay(self, tape: Tape, a: Node) -> Node:
        return tape.passes(self, a, account=self.account)


PARTS: dict[str, Callable[[], Any]] = {
    "channel norm": partial(ChannelNorm, LayerNorm2d),
    "channel norm of timm": partial(ChannelNorm, timm.layers.LayerNorm2d),
    "channel norm without weights": partial(
        ChannelNorm, partial(timm.layers.LayerNorm2d, affine=False)
    ),
    "group norm": partial(GroupNorm, nn.GroupNorm, 2, 4),
    "group norm without weights": partial(GroupNorm, partial(nn.GroupNorm, affine=False), 2, 4),
    "norm of all": partial(GroupNorm, nn.GroupNorm, 1, 4),
    "norm of all by timm": partial(GroupNorm, timm.layers.GroupNorm1, 4),
    "norm with activation": NormAct,
    "channels last": ChannelsLast,
    "squeeze excite": Gate,
    "gate first": partial(Gate, lambda x, gate: gate * x),
    "gate in place": partial(Gate, lambda x, gate: x.mul_(gate)),
    "gate expanded": partial(Gate, lambda x, gate: x * gate.expand_as(x)),
    "gate doubled": partial(Gate, lambda x, gate: x * (2 * gate)),
    "hard gate": partial(Gate, bounded=F.hardsigmoid),
    "gate by hand": partial(Gate, bounded=lambda z: F.relu6(z + 3) / 6),
    "signed gate": partial(Gate, bounded=torch.tanh, places=True),
    "attention": partial(Gate, bounded=partial(torch.softmax, dim=1), places=True),
    "broadcast sum": partial(Sum, lambda y: y.mean((2, 3), keepdim=True), torch.add),
    "difference": partial(Sum, lambda y: y.mean(3, keepdim=True), lambda x, y: x - y),
    "difference from it": partial(Sum, lambda y: y.mean(1, keepdim=True), lambda x, y: y - x),
    "scale": partial(Constant, torch.mul, None),
    "shift": partial(Constant, torch.add, ""),
    "shift from it": partial(Constant, lambda x, constant: constant - x, ""),
}
