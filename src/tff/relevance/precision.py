"""In which precision the convolutions of the rules are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "tf32": None, "bf16": torch.bfloat16}


@contextmanager
def tensor_cores(precision: str) -> Iterator[None]:
    """Let float32 convolutions of a GPU round their factors to TF32 in this block, or keep them.

    PyTorch lets cuDNN do so by default, also where full precision was asked for.
    """
    cudnn: Any = torch.backends.cudnn  # its switches are not in the type stubs
    switches = (cudnn.conv, torch.backends.cuda.matmul)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
