"""A network as a graph of its operations, traced by `torch.fx`.

Functions called with fixed parameters become layers, so that a convolution with standardised
weights, or a LayerNorm that calls `F.layer_norm`, is found by its class like any other layer.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torchvision.ops.stochastic_depth import stochastic_depth

from tff.detectors.attention import join_windows, rewrite_attention, split_windows, window_mask
from tff.detectors.frozen import freeze

#: Argument names of the functions that become layers, the input first.
ARGUMENTS: dict[Any, tuple[str, ...]] = {
    torch.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.linear: ("input", "weight", "bias"),
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
}


def as_layer(function: Any, arguments: dict[str, Any]) -> nn.Module:
    """Layer equivalent to a function of `ARGUMENTS` with these arguments (without the input)."""
    rest = dict(arguments)
    weight, bias = rest.pop("weight", None), rest.pop("bias", None)
    made: nn.Module
    with torch.device("meta"):  # its own parameters are replaced below
        if function is torch.conv2d:
            width = weight.shape[1] * rest.get("groups", 1)
            made = nn.Conv2d(width, len(weight), tuple(weight.shape[2:]), **rest)
        elif function is F.linear:
            made = nn.Linear(*reversed(weight.shape))
        elif function is F.layer_norm:
            made = nn.LayerNorm(rest.pop("normalized_shape"), **rest)
        elif function is F.rms_norm:
            made = nn.RMSNorm(rest.pop("normalized_shape"), **rest)
        else:
            n_channels = 0 if weight is None else len(weight)
            made = nn.GroupNorm(rest.pop("num_groups"), n_channels, **rest)
    for name, value in (("weight", weight), ("bias", bias)):
        parameter = nn.Parameter(value, requires_grad=False) if isinstance(value, Tensor) else None
        setattr(made, name, parameter)
    return made.eval()


#: In-place function -> its out-of-place counterpart.
OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    F.relu_: F.relu,
    torch.relu_: torch.relu,
}
#: Operations that return their input unchanged in eval mode.
UNCHANGED: set[Any] = {
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    F.dropout, F.dropout2d, torch.dropout, stochastic_depth, "contiguous", "to", "float",
    "type_as",
}  # fmt: skip
#: Operations that may return a view of their input.
VIEWS: set[Any] = UNCHANGED | {
    operator.getitem, nn.Flatten, nn.Unflatten, torch.flatten, torch.permute, torch.transpose,
    torch.reshape, torch.squeeze, torch.unsqueeze, torch.chunk, torch.split, torch.tensor_split,
    torch.unbind, torch.unflatten, "view", "view_as", "reshape", "expand", "expand_as",
}  # fmt: skip


def overwrites(node: fx.Node, operation: Any, module: nn.Module | None) -> bool:
    """Whether a node overwrites its first argument in eval mode."""
    if operation in UNCHANGED or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    return (
        bool(getattr(module, "inplace", False))
        or bool(node.kwargs.get("inplace"))
        or node.target in OUT_OF_PLACE
        or (node.op == "call_method" and str(node.target).endswith("_"))
    )


def redirect(node: fx.Node, before: Iterable[fx.Node], views: set[fx.Node]) -> bool:
    """Make later readers of an overwritten tensor read the output of the node instead.

    Args:
        node: overwrites its first argument.
        before: nodes that are executed earlier.
        views: nodes that return views of their first argument.

    Returns:
        False if impossible: later nodes read another view of the overwritten memory.
    """
    earlier = {node, *before}
    (written, *_) = node.all_input_nodes

    def root(other: fx.Node) -> fx.Node:
        while other in views:
            other = other.all_input_nodes[0]
        return other

    for other in earlier - {written, node}:
        if root(other) is root(written) and any(user not in earlier for user in other.users):
            return False
    written.replace_all_uses_with(node, delete_user_cb=lambda user: user not in earlier)
    return True


BATCH_NORM = nn.modules.batchnorm._BatchNorm

# One name per operation, however it is written; methods are found in `torch` by name.
_CANONICAL: dict[Any, Any] = {
    operator.add: torch.add,
    operator.sub: torch.sub,
    operator.mul: torch.mul,
    operator.truediv: torch.div,
    operator.neg: torch.neg,
    operator.matmul: torch.matmul,
}

#: Module classes, besides those of `torch.nn`, that are not traced into.
LEAVES: set[type] = set()


@dataclass
class Trace:
    """Operations of a network.

    Attributes:
        source: the input.
        nodes: operations in order of execution; the last one computes the output.
        modules: module of each node that calls one.
        names: of each node, the name of its module, or of the enclosing module.
        constants: values that do not depend on the input (parameters, and functions of them).
    """

    source: fx.Node
    nodes: list[fx.Node]
    modules: dict[fx.Node, nn.Module]
    names: dict[fx.Node, str]
    constants: dict[fx.Node, Any]

    def operation(self, node: fx.Node) -> Any:
        """Operation of a node: a module class, a function, or the name of a method."""
        if node in self.modules:
            return type(self.modules[node])
        target: Any = node.target
        if isinstance(target, str):
            name = target.removesuffix("_")
            functions = (getattr(namespace, name, None) for namespace in (torch, F))
            target = next((f for f in functions if callable(f)), name)
        target = OUT_OF_PLACE.get(target, target)
        return _CANONICAL.get(target, target)

    def location(self, node: fx.Node) -> str:
        """Location of a node in the network, for messages."""
        return f"in {self.names[node]}" if self.names[node] else "in the network itself"

    def run(self, node: fx.Node, value: dict[fx.Node, Any]) -> Any:
        """Output of a node; only a module with `inplace=True` overwrites its input."""
        known = self.constants | value
        args: Any = fx.node.map_arg(node.args, known.__getitem__)
        kwargs: Any = fx.node.map_arg(node.kwargs, known.__getitem__)
        if node in self.modules:
            return self.modules[node](*args, **kwargs)
        if kwargs.get("inplace"):
            kwargs = {**kwargs, "inplace": False}
        if node.op == "call_method":
            return getattr(args[0], str(node.target).removesuffix("_"))(*args[1:], **kwargs)
        target: Any = node.target
        return OUT_OF_PLACE.get(target, target)(*args, **kwargs)


#: Functions that depend on the size of their input, and are not traced into.
WHOLE = (pad_same, resample_abs_pos_embed, split_windows, join_windows, window_mask)


class _Tracer(fx.Tracer):
    """Does not trace into layers that use their parameters as they are, subclasses included.

    The network is called with images alone: its other arguments (masks, flags) take their defaults.
    """

    def __init__(self) -> None:
        super().__init__(autowrap_functions=WHOLE)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        code = root_fn.__code__
        first = code.co_varnames[1] if code.co_argcount > 1 else "images"
        return root_fn, [self.root, self.create_proxy("placeholder", first, (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.Conv2d):
            own = (type(m).forward, type(m)._conv_forward)
            return own == (nn.Conv2d.forward, nn.Conv2d._conv_forward) or type(m) is Conv2dSame
        if isinstance(m, BATCH_NORM | nn.Linear) or type(m) in LEAVES:
            return True
        return bool(super().is_leaf_module(m, module_qualified_name))


def trace(network: nn.Module) -> Trace:
    """Trace a frozen copy, see `freeze`.

    Raises:
        NotImplementedError: the network cannot be copied, or `torch.fx` cannot trace it, or it
            overwrites a tensor that is still needed.
    """
    module = freeze(network)
    rewrite_attention(module)
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # torch.fx raises whatever the traced code raises
        raise NotImplementedError(
            f"{type(network).__name__} cannot be traced by torch.fx: {_why(error, module)}"
        ) from error
    _separate_factors(graph)
    modules = dict(module.named_modules())
    source, *nodes, output = graph.nodes
    if not isinstance(output.args[0], fx.Node):
        raise NotImplementedError(f"{type(network).__name__} returns more than one tensor")
    found = Trace(source, [], {}, {}, {})
    views: set[fx.Node] = set()
    for node in nodes:
        if node.op == "call_module":
            found.modules[node] = modules[str(node.target)]
        stack = node.meta.get("nn_module_stack") or {"": None}
        found.names[node] = str(node.target) if node in found.modules else [*stack][-1]
        if node.op == "get_attr":
            found.constants[node] = operator.attrgetter(str(node.target))(module)
        elif node.op != "placeholder" and all(n in found.constants for n in node.all_input_nodes):
            with torch.no_grad():
                found.constants[node] = found.run(node, {})
        else:
            operation = found.operation(node)
            if overwrites(node, operation, found.modules.get(node)) and not redirect(
                node, found.nodes, views
            ):
                raise NotImplementedError(
                    f"{node.name!r} ({found.location(node)}) overwrites a tensor that is read "
                    "later, fully or in part, under another name; use the out-of-place operation"
                )
            if operation in VIEWS:
                views.add(node)
            _replace_by_layer(found, node, module)
            found.nodes.append(node)
    while found.nodes[-1] is not output.args[0]:  # operations after the output are not needed
        found.nodes.pop()
    return found


def _separate_factors(graph: fx.Graph) -> None:
    """Give attention whose queries, keys or values are one tensor a copy of it for each."""
    for node in graph.nodes:
        if node.target is not F.scaled_dot_product_attention:
            continue
        seen: set[fx.Node] = set()
        args = list(node.args)
        for i, factor in enumerate(args[:3]):
            if isinstance(factor, fx.Node) and factor in seen:
                with graph.inserting_before(node):
                    args[i] = graph.call_method("clone", (factor,))
                args[i].meta = dict(node.meta)
            elif isinstance(factor, fx.Node):
                seen.add(factor)
        node.args = tuple(args)


def _why(error: BaseException, network: nn.Module) -> str:
    """Why tracing failed, and in which module if that is known."""
    if not isinstance(error, fx.proxy.TraceError):
        return str(error)
    names = {module: name or "the network" for name, module in network.named_modules()}
    where, step = network, error.__traceback__
    while step is not None:
        within = step.tb_frame.f_locals.get("self")
        where = within if isinstance(within, nn.Module) and within in names else where
        step = step.tb_next
    return (
        f"{names[where]} ({type(where).__name__}) chooses by the size or the values of its input "
        "what it computes; only networks that compute the same for every image can be explained"
    )


def _replace_by_layer(found: Trace, node: fx.Node, network: nn.Module) -> None:
    """Replace a function called with constant parameters by the equivalent layer."""
    function = found.operation(node)
    if function not in ARGUMENTS:
        return
    given = dict(zip(ARGUMENTS[function], node.args, strict=False)) | dict(node.kwargs)
    image = given.pop("input")
    if any(n not in found.constants for n in node.all_input_nodes if n is not image):
        return
    known: Any = fx.node.map_arg(given, found.constants.__getitem__)
    found.modules[node] = made = as_layer(function, known)
    node.args, node.kwargs = (image,), {}
    if not isinstance(network.get_submodule(found.names[node]), type(made)):
        found.names[node] = f"{found.names[node]}.{node.name}".lstrip(".")  # not a module there
