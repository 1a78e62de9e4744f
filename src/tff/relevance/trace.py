"""A network as a graph of operations, its BatchNorm fused into the convolutions."""

from __future__ import annotations

import copy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def trace(network: nn.Module) -> tuple[list[fx.Node], dict[str, nn.Module]]:
    """Trace a frozen copy and fuse its BatchNorm exactly.

    Returns:
        The nodes in order of execution (the first is the input, the output node is left out), and
        the modules by their names in the network.

    Raises:
        NotImplementedError: the network cannot be traced, or holds a BatchNorm elsewhere than
            directly behind a convolution.
    """
    module = copy.deepcopy(network).eval().requires_grad_(False)
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # torch.fx raises whatever the traced code raises
        raise NotImplementedError(
            f"{type(network).__name__} cannot be traced by torch.fx: {error}"
        ) from error
    modules = dict(module.named_modules())
    _fuse(graph, modules)
    return [node for node in graph.nodes if node.op != "output"], modules


class _Tracer(fx.Tracer):
    """Keeps convolutions, BatchNorms and linear layers whole, also those that libraries derive."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | _BATCH_NORM | nn.Linear) or bool(
            super().is_leaf_module(m, module_qualified_name)
        )


def _fuse(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Fold each BatchNorm into the convolution before it; what a BatchNorm also does stays."""
    for node in list(graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, _BATCH_NORM):
            continue
        before = node.args[0]
        conv = modules.get(str(before.target))
        if not isinstance(conv, nn.Conv2d) or len(before.users) > 1:
            raise NotImplementedError(
                f"{node.target}: a BatchNorm that does not directly follow a convolution "
                "cannot be fused, and there is no rule for it alone"
            )
        fused = copy.copy(conv)
        fused._parameters = dict(fuse_conv_bn_eval(conv, norm)._parameters)
        modules[str(before.target)] = fused
        # timm's BatchNorm carries the activation that follows it.
        modules[str(node.target)] = getattr(norm, "act", None) or nn.Identity()
