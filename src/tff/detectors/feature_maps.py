"""Which channels of a network can be ranked and dropped, and where parts of its logit flow."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from timm.layers.activations import (
    GELU,
    GELUTanh,
    HardMish,
    HardSwish,
    Mish,
    QuickGELU,
    Swish,
)
from timm.layers.attention import resolve_self_attn_mask
from torch import fx, nn
from torch.nn import functional as F

from tff.detectors.attention import join_windows, window_mask
from tff.detectors.trace import BATCH_NORM, UNCHANGED, Trace, trace
from tff.types import KINDS, Channels

#: Bounded functions: a factor of a product that is the output of one of them is a gate.
SIGNED = {nn.Tanh, nn.Hardtanh, torch.tanh, F.tanh, F.hardtanh}
BOUNDED = SIGNED | {
    nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.ReLU6, torch.sigmoid, F.sigmoid, F.hardsigmoid,
    torch.softmax, F.softmax, F.relu6,
}  # fmt: skip
#: Operations that read the shape of a tensor, not its values.
SHAPE = {"size", "dim", "numel", getattr, len, window_mask, resolve_self_attn_mask}
# Operations whose second tensor gives a shape or a type only.
_LIKE = {"type_as", "expand_as", "view_as", "reshape_as", join_windows}
#: Operations that return several tensors, which other nodes pick apart.
SPLITS = {torch.chunk, torch.split, torch.tensor_split, torch.unbind}
# Operations allowed between the bounded function of a gate and the product.
_GATE_PATH = {
    "view", "reshape", "expand", "expand_as", "contiguous", "type_as", "to",
    torch.reshape, torch.unsqueeze, torch.squeeze, torch.flatten, torch.permute, torch.transpose,
    operator.getitem, torch.mul, torch.div, nn.Identity, nn.Dropout, F.dropout,
}  # fmt: skip
# Between the softmax of attention weights and their product with the values: heads may be mixed.
_WEIGHTS_PATH = _GATE_PATH | {nn.Linear}
_CHANGES_SIGN = {torch.mul, torch.div, nn.Linear}

#: Operations that mix values by attention weights.
ATTENTION = {F.scaled_dot_product_attention, torch.matmul, torch.bmm, torch.einsum}
#: Products of two tensors, of which one must be a gate.
_PRODUCTS = ATTENTION - {F.scaled_dot_product_attention} | {torch.mul}

#: Classes of activations that timm has beside those of PyTorch.
TIMM_ACTIVATIONS = {Swish, Mish, HardSwish, HardMish, GELU, GELUTanh, QuickGELU}
#: Elementwise functions before which a zero turns a neuron off.
ACTIVATIONS = TIMM_ACTIVATIONS | {
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Mish, nn.Tanh,
    torch.relu, F.relu, F.relu6, F.silu, F.hardswish, F.gelu, F.leaky_relu, F.elu, F.mish,
    torch.tanh, F.tanh,
}  # fmt: skip
_UNBOUNDED = ACTIVATIONS - BOUNDED
# Operations allowed between a neuron and the linear layer that reads it.
_BETWEEN = UNCHANGED | {torch.mul}

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


def flow(traced: Trace, attention: str = "cp") -> Flow:
    """Follow the logit back to the image.

    A gate (a factor of a product that is the output of a sigmoid or another bounded function, as in
    squeeze-excite, or of an activation, as in SwiGLU) scales the logit but carries no part of it.
    Nor do the weights of an attention, unless its rule is `attnlrp`, nor anything that depends only
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
        operation = traced.operation(node)
        if operation is F.scaled_dot_product_attention:
            inputs = [n for n in inputs if attention == "attnlrp" or n is _value(node)]
        elif operation in ATTENTION and len(inputs) > 1 and attention == "attnlrp":
            pass
        elif operation in _PRODUCTS and len(inputs) > 1:
            gate, found.gates[node] = _gate(traced, reachable, node, inputs)
            inputs = [n for n in inputs if n is not gate]
        found.carriers[node] = inputs
        pending += inputs
    return found


def _value(node: fx.Node) -> Any:
    """The values that an attention mixes, its third argument."""
    return node.args[2] if len(node.args) > 2 else node.kwargs["value"]


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


def _gate(
    traced: Trace, reachable: Inputs, product: fx.Node, factors: list[fx.Node]
) -> tuple[fx.Node, bool]:
    """The factor that is a gate, and whether it is known to be nonnegative.

    That is the only output of a bounded function, or else of an activation.

    Raises:
        NotImplementedError: not exactly one of two factors is.
    """
    path = _WEIGHTS_PATH if traced.operation(product) in ATTENTION else _GATE_PATH
    for functions in (BOUNDED, _UNBOUNDED):
        signs = {n: _output_of(traced, reachable, n, functions, path) for n in factors}
        gates = [(n, sign) for n, sign in signs.items() if sign is not None]
        if len(factors) == 2 and len(gates) == 1:
            return gates[0]
    raise NotImplementedError(
        f"no relevance rule for the product {product.name!r} ({traced.location(product)}): exactly "
        "one of two tensors must be a gate, that is, the output of a sigmoid or another bounded "
        "function, or else of an activation"
    )


def _output_of(
    traced: Trace, reachable: Inputs, factor: fx.Node, functions: set[Any], path: set[Any]
) -> bool | None:
    """Whether the output of one of the functions is known to be nonnegative; None if it is none.

    It may pass the operations of `path` afterwards, as long as nothing else is mixed in.
    """
    nonnegative = True
    while not _is(traced, reachable, factor, functions):
        operation = traced.operation(factor)
        if operation not in path or len(reachable[factor]) > 1:
            return None
        nonnegative = nonnegative and operation not in _CHANGES_SIGN
        factor = reachable[factor][0]
    return nonnegative and traced.operation(factor) in BOUNDED - SIGNED


def _is(traced: Trace, reachable: Inputs, node: fx.Node, functions: set[Any]) -> bool:
    """Whether a node is one of the functions; x sigmoid(c x) is an activation."""
    if traced.operation(node) in functions:
        return True
    inputs = reachable[node]
    if functions is not _UNBOUNDED or traced.operation(node) is not torch.mul or len(inputs) != 2:
        return False
    for gate, value in (inputs, inputs[::-1]):
        while gate is not value and len(reachable[gate]) == 1:
            if traced.operation(gate) not in BOUNDED | {torch.mul}:
                break
            (gate,) = reachable[gate]
        if gate is value:
            return True
    return False


def find_channels(network: nn.Module, kinds: Collection[str] | None = None) -> Channels:
    """What can be ranked and dropped, in module order.

    All that a part of the logit flows through: not what lies inside a gate, nor the layer that
    computes the logit itself.

    - `conv`: output channels of convolutions;
    - `embedding`: output channels of the convolution that turns patches of the image into tokens;
    - `neurons`: outputs of a linear layer that pass an activation, or are multiplied by one, and
      enter another linear layer; of a layer that computes both factors, those that are no gate;
    - `heads`: what an attention head passes to the output projection.

    Args:
        network: any module that `torch.fx` can trace.
        kinds: of them, some of `KINDS`. None: `conv`, and all kinds in networks with attention.

    Raises:
        NotImplementedError: the network cannot be traced.
    """
    traced = trace(network)
    carriers = flow(traced).carriers
    head = traced.nodes[-1]
    while not isinstance(traced.modules.get(head), nn.Conv2d | nn.Linear) and carriers.get(head):
        head = carriers[head][0]
    heads = _attention_heads(traced, carriers, network)
    kind_of: dict[str, str] = {}
    rows: dict[str, range] = {}
    for node in carriers:
        module, name = traced.modules.get(node), traced.names[node]
        if node is head or not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if isinstance(module, nn.Conv2d):
            makes_tokens = module.kernel_size == module.stride and carriers[node] == [traced.source]
            kind_of[name] = "embedding" if heads and makes_tokens else "conv"
        if before := _neurons_before(traced, carriers, node):
            layer, neurons = before
            kind_of[traced.names[layer]] = "neurons"
            rows[traced.names[layer]] = neurons
    kind_of |= dict.fromkeys(heads, "heads")
    wanted = kinds or (KINDS if heads else ("conv",))
    modules = {
        name: module
        for name, module in network.named_modules()
        if kind_of.get(name) in wanted and isinstance(module, nn.Conv2d | nn.Linear)
    }
    widths = {
        name: heads.get(name) or len(rows.get(name, module.weight))
        for name, module in modules.items()
    }
    first = {name: rows[name][0] for name in modules if name in rows and rows[name][0]}
    return Channels(widths, {n: kind_of[n] for n in modules if kind_of[n] != "conv"}, first)


def uses_attention(traced: Trace) -> bool:
    """Whether tokens attend to each other anywhere."""
    return any(traced.operation(node) in ATTENTION for node in flow(traced).carriers)


def _attention_heads(traced: Trace, carriers: Inputs, network: nn.Module) -> dict[str, int]:
    """Number of heads that enter each output projection, by the name of that layer."""
    found = {}
    for node in carriers:
        if traced.operation(node) not in ATTENTION:
            continue
        where = traced.names[node]
        number = _attribute(network, where, "num_heads") or _attribute(network, where, "n_heads")
        after: fx.Node | None = node
        while after is not None and not isinstance(traced.modules.get(after), nn.Linear):
            after = next((n for n in after.users if after in carriers.get(n, [])), None)
        if number and after is not None:
            found[traced.names[after]] = number
    return found


def _attribute(network: nn.Module, name: str, attribute: str) -> int | None:
    """Attribute of a module, or of the nearest one around it that has it."""
    while True:
        module = network.get_submodule(name)
        if isinstance(value := getattr(module, attribute, None), int):
            return value
        if not name:
            return None
        name = name.rpartition(".")[0]


def _neurons_before(traced: Trace, carriers: Inputs, node: fx.Node) -> tuple[fx.Node, range] | None:
    """The linear layer whose outputs enter another one after an activation or a gate, and which."""
    if not isinstance(traced.modules.get(node), nn.Linear):
        return None
    activated = False
    picked: list[fx.Node] = []
    while len(carriers.get(node, [])) == 1:
        before = carriers[node]
        (node,) = before
        module, operation = traced.modules.get(node), traced.operation(node)
        if isinstance(module, nn.Linear):
            neurons = _picked(traced, picked, node, len(module.weight)) if activated else None
            return (node, neurons) if neurons else None
        if operation in ACTIVATIONS or (operation is torch.mul and len(node.all_input_nodes) > 1):
            activated = True
        elif operation is operator.getitem:
            picked.append(node)
        elif not (operation in _BETWEEN or isinstance(module, nn.LayerNorm)):
            return None
    return None


def _picked(traced: Trace, picked: list[fx.Node], layer: fx.Node, width: int) -> range | None:
    """Which outputs of a linear layer remain where some are picked; None if not a row of them."""
    values = torch.arange(width)[None, None]
    for node in reversed(picked):
        split = split_source(traced, node)
        try:
            if split is not None:
                values = traced.run(split, {split.all_input_nodes[0]: values})[node.args[1]]
            else:
                values = traced.run(node, {node.all_input_nodes[0]: values})
        except (IndexError, RuntimeError, KeyError):  # of tokens, or by a size
            return None
    first, length = int(values.flatten()[0]), values.shape[-1]
    found = range(first, first + length)
    return found if values.flatten().tolist() == list(found) else None


# Elementwise operations that keep channels apart.
_ELEMENTWISE_MODULES = (
    BATCH_NORM, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.PReLU, nn.ELU,
    nn.Mish,
)  # fmt: skip
_ELEMENTWISE_FUNCTIONS = UNCHANGED | {
    torch.relu, F.relu, F.relu6, F.silu, F.hardswish, F.gelu, F.leaky_relu, F.elu, F.mish,
}  # fmt: skip


def depthwise_twins(network: nn.Module, channels: Channels | None = None) -> torch.Tensor:
    """Flat index of the earlier channel that each channel repeats, or -1: (n_channels,).

    Channel c of a depthwise convolution that follows another convolution, with only BatchNorm and
    an activation between them, filters channel c of that one. It carries the same relevance (except
    for losses), and so occurs a second time in a ranking.

    Args:
        network: any module that `torch.fx` can trace.
        channels: their numbering; None: that of `find_channels`.
    """
    traced, channels = trace(network), channels or find_channels(network)
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
