"""Channels that carry the same: a depthwise convolution and the one before it."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn import functional as F

from tff.detectors.feature_maps import feature_maps, flow
from tff.detectors.in_place import UNCHANGED
from tff.detectors.trace import BATCH_NORM, Trace, trace

_MODULES = (
    BATCH_NORM, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.PReLU, nn.ELU,
    nn.Mish,
)  # fmt: skip
_FUNCTIONS = UNCHANGED | {
    torch.relu, F.relu, F.relu6, F.silu, F.hardswish, F.gelu, F.leaky_relu, F.elu, F.mish,
}  # fmt: skip


def twins(network: nn.Module) -> torch.Tensor:
    """Of each channel the earlier one that it continues, or -1: (n_channels,) flat indices.

    A depthwise convolution keeps channels apart. Behind nothing but BatchNorm and an activation,
    channel c of it works on channel c of the convolution before, carries the same relevance (but
    for what is lost), and stands in a ranking a second time.
    """
    traced, channels = trace(network), feature_maps(network)
    carriers = flow(traced).carriers
    twin = torch.full((len(channels),), -1)
    for node in carriers:
        module = traced.modules.get(node)
        if not isinstance(module, nn.Conv2d) or module.groups != module.in_channels:
            continue
        before = _before(traced, carriers, node)
        names = [traced.names[node], traced.names.get(before) if before else None]
        if (
            module.groups > 1
            and module.out_channels == module.groups
            and all(name in channels.widths for name in names)
        ):
            mine, other = (channels.starts[str(name)] for name in names)
            twin[mine : mine + module.groups] = torch.arange(other, other + module.groups)
    return twin


def _before(traced: Trace, carriers: dict[fx.Node, list[fx.Node]], node: fx.Node) -> fx.Node | None:
    """The convolution that a node reads through operations on single elements only."""
    while len(carriers.get(node, [])) == 1:
        (node,) = carriers[node]
        module = traced.modules.get(node)
        if isinstance(module, nn.Conv2d):
            return node
        if not isinstance(module, _MODULES) and traced.operation(node) not in _FUNCTIONS:
            return None
    return None
