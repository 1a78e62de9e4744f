"""BatchNorm, folded into the convolution before it."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tff.detectors.trace import BATCH_NORM, Trace


def fuse(traced: Trace) -> None:
    """Fold each BatchNorm that directly follows a convolution into it, exactly.

    The convolution is used for nothing else then. An activation that timm's BatchNorm carries
    stays; a BatchNorm elsewhere stays too, and has a rule of its own.

    Raises:
        NotImplementedError: a BatchNorm uses the statistics of the batch.
    """
    for node in list(traced.nodes):
        norm = traced.modules.get(node)
        if not isinstance(norm, BATCH_NORM):
            continue
        if norm.running_var is None:
            raise NotImplementedError(
                f"{traced.names[node]}: a BatchNorm without running statistics makes an image's "
                "logit depend on the other images of its batch, and cannot be explained"
            )
        (before,) = node.all_input_nodes
        convolution = traced.modules.get(before)
        if not isinstance(convolution, nn.Conv2d) or len(before.users) > 1:
            continue
        fused = copy.copy(convolution)
        fused._parameters = dict(fuse_conv_bn_eval(convolution, norm)._parameters)
        traced.modules[before] = fused
        activation = getattr(norm, "act", None)  # timm's BatchNorm carries the one that follows it
        if activation is None or isinstance(activation, nn.Identity):
            node.replace_all_uses_with(before)
            node.graph.erase_node(node)
            traced.nodes.remove(node)
        else:
            traced.modules[node] = activation
