"""Operations that overwrite their input, told apart from those that make something new."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torchvision.ops.stochastic_depth import stochastic_depth

#: For each function that overwrites its first argument, the one that does not.
OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    F.relu_: F.relu,
    torch.relu_: torch.relu,
}
#: Nothing happens in these in eval mode: what comes out is what went in.
UNCHANGED: set[Any] = {
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    F.dropout, F.dropout2d, torch.dropout, stochastic_depth, "contiguous", "to", "float",
    "type_as",
}  # fmt: skip
#: These may return a part of their input, or all of it laid out anew, without a copy.
VIEWS: set[Any] = UNCHANGED | {
    operator.getitem, nn.Flatten, nn.Unflatten, torch.flatten, torch.permute, torch.transpose,
    torch.reshape, torch.squeeze, torch.unsqueeze, torch.chunk, torch.split, torch.tensor_split,
    torch.unbind, "view", "view_as", "reshape", "expand", "expand_as",
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
    """Let whoever reads the overwritten tensor later read the output of the node instead.

    Args:
        node: overwrites its first argument.
        before: the nodes that are executed earlier.
        views: those of all nodes that return views of their first argument.

    Returns:
        False where that is impossible: later nodes read a part of what is overwritten, or a whole
        of which a part is.
    """
    earlier = {node, *before}
    (written, *_) = node.all_input_nodes

    def root(other: fx.Node) -> fx.Node:
        while other in views:
            other = other.all_input_nodes[0]
        return other

    relatives = [n for n in earlier if n is not written and n is not node]
    for relative in relatives:
        if root(relative) is root(written) and any(user not in earlier for user in relative.users):
            return False
    written.replace_all_uses_with(node, delete_user_cb=lambda user: user not in earlier)
    return True
