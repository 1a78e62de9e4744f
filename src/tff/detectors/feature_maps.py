"""Which layers of a network count as feature maps, and which of them repeat another one."""

from __future__ import annotations

import operator
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F

from tff.detectors.trace import BATCH_NORM, UNCHANGED, Trace, trace
from tff.types import Channels

#: Functions with bounded values: a factor that one of them made is a gate.
SIGNED = {nn.Tanh, nn.Hardtanh, torch.tanh, F.tanh, F.hardtanh}
BOUNDED = SIGNED | {
    nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.ReLU6, torch.sigmoid, F.sigmoid, F.hardsigmoid,
    torch.softmax, F.softmax, F.relu6,
}  # fmt: skip
#: Operations on the shape of a tensor, not on its values.
SHAPE = {"size", "dim", "numel", getattr, len}
# Of these the second tensor tells a shape or a type only.
_LIKE = {"type_as", "expand_as", "view_as", "reshape_as"}
#: Operations that return several tensors, of which others take one each.
SPLITS = {torch.chunk, torch.split, torch.tensor_split, torch.unbind}
# What a gate may pass between the bounded function and the product.
_KEEPING = {
    "view", "reshape", "expand", "expand_as", "contiguous", "type_as", "to",
    torch.reshape, torch.unsqueeze, torch.squeeze, torch.flatten, torch.permute, torch.transpose,
    operator.getitem, torch.mul, torch.div, nn.Identity, nn.Dropout,
}  # fmt: skip

Inputs = dict[fx.Node, list[fx.Node]]


class Flow(NamedTuple):
    """Where the parts of the logit come from.

    Attributes:
        carriers: of each operation that a part of the logit flows through, the inputs that bring
            it.
        gates: of each product with a gate, whether the gate is known never to be negative.
    """

    carriers: Inputs
    gates: dict[fx.Node, bool]


def flow(traced: Trace) -> Flow:
    """Follow the logit back to the image.

    A gate (the factor of a product that a sigmoid or the like has made, as in squeeze-excite)
    steers what flows but brings nothing; neither does what depends on the size of the image alone.

    Raises:
        NotImplementedError: a product of two tensors of which it is unclear what the gate is.
    """
    brought: Inputs = {traced.source: []}
    for node in traced.nodes:
        inputs = [n for n in sources(traced, node) if n in brought]
        if traced.operation(node) in _LIKE:
            inputs = inputs[:1]
        if inputs and traced.operation(node) not in SHAPE:
            brought[node] = inputs
    found = Flow({}, {})
    pending = [traced.nodes[-1]]
    while pending:
        node = pending.pop()
        if node is traced.source or node in found.carriers:
            continue
        inputs = brought.get(node, [])
        if traced.operation(node) is torch.mul and len(inputs) > 1:
            made = {n: _bounded(traced, brought, n) for n in inputs}
            gates = [n for n in inputs if made[n] is not None]
            if len(inputs) != 2 or len(gates) != 1:
                raise NotImplementedError(
                    f"no relevance rule for the product {node.name!r} "
                    f"({traced.location(node)}): exactly one of two tensors must be a gate, that "
                    "is, the output of a sigmoid or another bounded function"
                )
            found.gates[node] = made[gates[0]] is True
            inputs = [n for n in inputs if made[n] is None]
        found.carriers[node] = inputs
        pending += inputs
    return found


def sources(traced: Trace, node: fx.Node) -> list[fx.Node]:
    """The nodes that an operation reads, constants aside; one that takes a part reads the whole."""
    whole = split_source(traced, node)
    inputs = (node if whole is None else whole).all_input_nodes
    return [n for n in inputs if n not in traced.constants]


def split_source(traced: Trace, node: fx.Node) -> fx.Node | None:
    """The operation with several outputs of which this node takes one, or None."""
    whole = node.args[0] if node.args else None
    if traced.operation(node) is operator.getitem and isinstance(whole, fx.Node):
        return whole if traced.operation(whole) in SPLITS else None
    return None


def _bounded(traced: Trace, brought: Inputs, factor: fx.Node) -> bool | None:
    """None unless a bounded function made these values; then, whether they are never negative.

    They may be scaled, or laid out anew.
    """
    nonnegative = True
    while (operation := traced.operation(factor)) not in BOUNDED:
        if operation not in _KEEPING or len(brought[factor]) > 1:
            return None
        nonnegative = nonnegative and operation not in (torch.mul, torch.div)
        factor = brought[factor][0]
    return nonnegative and operation not in SIGNED


def feature_maps(network: nn.Module) -> Channels:
    """The convolutions whose output channels count as feature maps, in module order.

    All that a part of the logit flows through; not those inside a gate, nor one that gives the
    logit itself.

    Raises:
        NotImplementedError: the network cannot be traced.
    """
    traced = trace(network)
    carriers = flow(traced).carriers
    head = traced.nodes[-1]
    while not isinstance(traced.modules.get(head), nn.Conv2d | nn.Linear) and carriers.get(head):
        head = carriers[head][0]
    reached = {
        traced.names[node]
        for node in carriers
        if node is not head and isinstance(traced.modules.get(node), nn.Conv2d)
    }
    return Channels(
        {
            name: module.out_channels
            for name, module in network.named_modules()
            if name in reached and isinstance(module, nn.Conv2d)
        }
    )


_MODULES = (
    BATCH_NORM, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.PReLU, nn.ELU,
    nn.Mish,
)  # fmt: skip
_FUNCTIONS = UNCHANGED | {
    torch.relu, F.relu, F.relu6, F.silu, F.hardswish, F.gelu, F.leaky_relu, F.elu, F.mish,
}  # fmt: skip


def depthwise_twins(network: nn.Module) -> torch.Tensor:
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


_KNOWN = {
    "celu", "elu", "gelu", "hardswish", "leaky_relu", "mish", "prelu", "relu", "relu6", "rrelu",
    "selu", "silu", "softplus", "CELU", "ELU", "GELU", "Hardswish", "LeakyReLU", "Mish", "PReLU",
    "ReLU6", "RReLU", "SELU", "SiLU", "Softplus",
}  # fmt: skip


def non_relu_activations(network: nn.Module) -> list[str]:
    """The activations that are no `nn.ReLU` modules, sorted; functions in lower case, as `relu()`.

    Those of gates (sigmoid) are left out.

    Raises:
        NotImplementedError: the network cannot be traced.
    """
    traced = trace(network)
    operations = {traced.operation(node) for node in traced.nodes}
    names = {getattr(operation, "__name__", str(operation)) for operation in operations} & _KNOWN
    return sorted(name if name[0].isupper() else f"{name}()" for name in names)
