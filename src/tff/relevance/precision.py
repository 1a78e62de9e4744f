"""In which precision the convolutions of the rules are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

PRECISIONS = ("fp32", "tf32", "bf16")


class Full:
    """Convolutions in the precision of the network."""

    def narrow(self, x: Tensor) -> Tensor:
        """What goes into a convolution."""
        return x

    def wide(self, x: Tensor, like: Tensor) -> Tensor:
        """What comes out of it, in the precision of `like`."""
        return x


FULL = Full()


class BFloat16(Full):
    """Convolutions of bfloat16 numbers, whose sums are kept in float32 and rounded in the end.

    A CPU without such arithmetic would be some fifty times slower; there the numbers are rounded
    alike and multiplied in float32.
    """

    def narrow(self, x: Tensor) -> Tensor:
        rounded = x.to(torch.bfloat16)
        return rounded if _has_bfloat16(x.device.type) else rounded.float()

    def wide(self, x: Tensor, like: Tensor) -> Tensor:
        return x.to(torch.bfloat16).to(like.dtype)


@cache
def _has_bfloat16(device: str) -> bool:
    return device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def named(name: str) -> Full:
    """The precision of convolutions by its name, one of `PRECISIONS`."""
    return BFloat16() if name == "bf16" else FULL


@contextmanager
def tensor_cores(name: str) -> Iterator[None]:
    """Let float32 convolutions of a GPU round their factors to TF32 in this block, or keep them.

    PyTorch lets cuDNN do so by default, also where full precision was asked for.
    """
    cudnn: Any = torch.backends.cudnn  # its switches are not in the type stubs
    switches = (cudnn.conv, torch.backends.cuda.matmul)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if name == "tf32" else "ieee"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
