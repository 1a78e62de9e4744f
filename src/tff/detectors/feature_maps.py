"""Which layers of a network count as feature maps, and where the parts of its logit flow."""

from __future__ import annotations

import operator
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F

from tff.detectors.trace import BATCH_NORM, UNCHANGED, Trace, trace
from tff.types import Channels

#: Bounded functions: a factor of a product that is the output of one of them is a gate.
SIGNED = {nn.Tanh, nn.Hardtanh, torch.tanh, F.tanh, F.hardtanh}
BOUNDED = SIGNED | {
    nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.ReLU6, torch.sigmoid, F.sigmoid, F.hardsigmoid,
    torch.softmax, F.softmax, F.relu6,
}  # fmt: skip
#: Operations that read the shape of a tensor, not its values.
SHAPE = {"size", "dim", "numel", getattr, len}
# Operations whose second tensor gives a shape or a type only.
_LIKE = {"type_as", "expand_as", "view_as", "reshape_as"}
#: Operations that return several tensors, which other nodes pick apart.
SPLITS = {torch.chunk, torch.split, torch.tensor_split, torch.unbind}
# Operations allowed between the bounded function of a gate and the product.
_GATE_PATH = {
    "view", "reshape", "expand", "expand_as", "contiguous", "type_as", "to",
    torch.reshape, torch.unsqueeze, torch.squeeze, torch.flatten, torch.permute, torch.transpose,
    operator.getitem, torch.mul, torch.div, nn.Identity, nn.Dropout,
}  # fmt: skip

Inputs = dict[fx.Node, list[fx.Node]]


class Flow(NamedTuple):
    """Path of the logit through the operations.

    Attributes:
        carriers: for each operation that a part of the logit flows through, the inputs that carry
            it.
        gates: for each product with a gate, whether the gate is known to be nonnegative.
    """

    carriers: Inputs
    gates: dict[fx.Node, bool]


def flow(traced: Trace) -> Flow:
    """Follow the logit back to the image.

    A gate (a factor of a product that is the output of a sigmoid or another bounded function, as in
    squeeze-excite) scales the logit but carries no part of it. Nor does anything that depends only
    on the size of the image.

    Raises:
        NotImplementedError: a product of two tensors without exactly one gate.
    """
    reachable: Inputs = {traced.source: []}
    for node in traced.nodes:
        inputs = [n for n in sources(traced, node) if n in reachable]
        if traced.operation(node) in _LIKE:
            inputs = inputs[:1]
        if inputs and traced.operation(node) not in SHAPE:
            reachable[node] = inputs
    found = Flow({}, {})
    pending = [traced.nodes[-1]]
    while pending:
        node = pending.pop()
        if node is traced.source or node in found.carriers:
            continue
        inputs = reachable.get(node, [])
        if traced.operation(node) is torch.mul and len(inputs) > 1:
            bounded = {n: _bounded(traced, reachable, n) for n in inputs}
            gates = [n for n in inputs if bounded[n] is not None]
            if len(inputs) != 2 or len(gates) != 1:
                raise NotImplementedError(
                    f"no relevance rule for the product {node.name!r} "
                    f"({traced.location(node)}): exactly one of two tensors must be a gate, that "
                    "is, the output of a sigmoid or another bounded function"
                )
            found.gates[node] = bounded[gates[0]] is True
            inputs = [n for n in inputs if bounded[n] is None]
        found.carriers[node] = inputs
        pending += inputs
    return found


def sources(traced: Trace, node: fx.Node) -> list[fx.Node]:
    """Nodes that an operation reads, without constants; part of a split reads the split tensor."""
    split = split_source(traced, node)
    inputs = (node if split is None else split).all_input_nodes
    return [n for n in inputs if n not in traced.constants]


def split_source(traced: Trace, node: fx.Node) -> fx.Node | None:
    """The split that this node picks one output of, or None."""
    split = node.args[0] if node.args else None
    if traced.operation(node) is operator.getitem and isinstance(split, fx.Node):
        return split if traced.operation(split) in SPLITS else None
    return None


def _bounded(traced: Trace, reachable: Inputs, factor: fx.Node) -> bool | None:
    """Whether a gate is known to be nonnegative; None if this factor is not a gate.

    A gate may be scaled or reshaped after the bounded function.
    """
    nonnegative = True
    while (operation := traced.operation(factor)) not in BOUNDED:
        if operation not in _GATE_PATH or len(reachable[factor]) > 1:
            return None
        nonnegative = nonnegative and operation not in (torch.mul, torch.div)
        factor = reachable[factor][0]
    return nonnegative and operation not in SIGNED


def feature_maps(network: nn.Module) -> Channels:
    """Convolutions whose output channels count as feature maps, in module order.

    All that a part of the logit flows through: not those inside a gate, nor the one that computes
    the logit itself.

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
    convolutions = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    return Channels({name: m.out_channels for name, m in convolutions if name in reached})


# Elementwise operations that keep channels apart.
_ELEMENTWISE_MODULES = (
    BATCH_NORM, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.PReLU, nn.ELU,
    nn.Mish,
)  # fmt: skip
_ELEMENTWISE_FUNCTIONS = UNCHANGED | {
    torch.relu, F.relu, F.relu6, F.silu, F.hardswish, F.gelu, F.leaky_relu, F.elu, F.mish,
}  # fmt: skip


def depthwise_twins(network: nn.Module) -> torch.Tensor:
    """Flat index of the earlier channel that each channel repeats, or -1: (n_channels,).

    Channel c of a depthwise convolution that follows another convolution, with only BatchNorm and
    an activation between them, filters channel c of that one. It carries the same relevance (except
    for losses), and so occurs a second time in a ranking.
    """
    traced, channels = trace(network), feature_maps(network)
    carriers = flow(traced).carriers
    twins = torch.full((len(channels),), -1)
    for node in carriers:
        module = traced.modules.get(node)
        if not isinstance(module, nn.Conv2d) or module.groups != module.in_channels:
            continue
        before = _convolution_before(traced, carriers, node)
        names = [traced.names[node], traced.names[before] if before else ""]
        one_each = module.groups == module.out_channels > 1  # one filter for each input channel
        if one_each and all(name in channels.widths for name in names):
            mine, other = (channels.starts[name] for name in names)
            twins[mine : mine + module.groups] = torch.arange(other, other + module.groups)
    return twins


def _convolution_before(traced: Trace, carriers: Inputs, node: fx.Node) -> fx.Node | None:
    """The convolution that a node reads through elementwise operations only."""
    while len(carriers.get(node, [])) == 1:
        (node,) = carriers[node]
        module, operation = traced.modules.get(node), traced.operation(node)
        if isinstance(module, nn.Conv2d):
            return node
        if not (isinstance(module, _ELEMENTWISE_MODULES) or operation in _ELEMENTWISE_FUNCTIONS):
            return None
    return None


_ACTIVATIONS = {
    "celu", "elu", "gelu", "hardswish", "leaky_relu", "mish", "prelu", "relu", "relu6", "rrelu",
    "selu", "silu", "softplus", "CELU", "ELU", "GELU", "Hardswish", "LeakyReLU", "Mish", "PReLU",
    "ReLU6", "RReLU", "SELU", "SiLU", "Softplus",
}  # fmt: skip


def non_relu_activations(network: nn.Module) -> list[str]:
    """Activations other than `nn.ReLU` modules and gates, sorted; functions appear as `relu()`.

    Raises:
        NotImplementedError: the network cannot be traced.
    """
    traced = trace(network)
    operations = {traced.operation(node) for node in traced.nodes}
    names = {getattr(o, "__name__", str(o)) for o in operations} & _ACTIVATIONS
    return sorted(name if name[0].isupper() else f"{name}()" for name in names)
