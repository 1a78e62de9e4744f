"""What a convolution module says: its weights with BatchNorm in them, and what lies around it."""

from __future__ import annotations

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.std_conv import ScaledStdConv2d
from torch import Tensor, nn


def fused(conv: nn.Conv2d, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Weight and bias."""
    weight = conv.weight
    if isinstance(conv, ScaledStdConv2d):
        flat = weight.flatten(1)
        mean = flat.sum(1, keepdim=True) / flat.shape[1]
        variance = ((flat - mean) ** 2).sum(1, keepdim=True) / flat.shape[1]
        flat = (flat - mean) / (variance + conv.eps).sqrt() * conv.scale
        weight = flat.reshape(weight.shape) * conv.gain
    bias = torch.zeros(len(weight)) if conv.bias is None else conv.bias
    if norm is None:
        return weight, bias
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return weight * scale[:, None, None, None], (bias - norm.running_mean) * scale + norm.bias


def edges(conv: nn.Conv2d, shape: torch.Size) -> list[int]:
    """Width of the padding left, right, above and below."""
    found: list[int] = []
    for axis in (1, 0):
        size, stride = shape[1 + axis], conv.stride[axis]
        beyond = (conv.kernel_size[axis] - 1) * conv.dilation[axis]
        if isinstance(conv, Conv2dSame):  # TensorFlow's "same"
            total = max((-(-size // stride) - 1) * stride + beyond + 1 - size, 0)
            found += [total // 2, total - total // 2]
        elif conv.padding == "same":
            found += [beyond // 2, beyond - beyond // 2]
        else:
            found += [0 if conv.padding == "valid" else conv.padding[axis]] * 2
    return found
