"""A function called with parameters -> the layer that it amounts to.

So a convolution with standardised weights, or a LayerNorm that calls `F.layer_norm`, is found by
its class as any other layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Names of the arguments of each function, the tensor that flows through first.
ARGUMENTS: dict[Any, tuple[str, ...]] = {
    torch.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    F.linear: ("input", "weight", "bias"),
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
}


def layer(function: Any, arguments: dict[str, Any]) -> nn.Module:
    """The layer that a function of `ARGUMENTS` with these arguments (but the first) amounts to."""
    rest = dict(arguments)
    weight, bias = rest.pop("weight", None), rest.pop("bias", None)
    made: nn.Module
    with torch.device("meta"):  # the parameters that are made here are thrown away
        if function is torch.conv2d:
            width = weight.shape[1] * rest.get("groups", 1)
            made = nn.Conv2d(width, len(weight), tuple(weight.shape[2:]), **rest)
        elif function is F.linear:
            made = nn.Linear(*reversed(weight.shape))
        elif function is F.layer_norm:
            made = nn.LayerNorm(rest.pop("normalized_shape"), **rest)
        else:
            made = nn.GroupNorm(
                rest.pop("num_groups"), 0 if weight is None else len(weight), **rest
            )
    for name, value in (("weight", weight), ("bias", bias)):
        parameter = nn.Parameter(value, requires_grad=False) if isinstance(value, Tensor) else None
        setattr(made, name, parameter)
    return made.eval()
