"""A function of tensors, compiled for each shape of its inputs that comes more than once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx


class Compiled:
    """Runs a function as it is the first time, and compiled from the second time on.

    So the last, smaller batch of a pass is not worth a compilation. The function is first written
    down as a flat list of tensor operations: `torch.compile` alone gives up on its way through the
    steps of a network and compiles each of them for itself.

    Args:
        function: of tensors, whose course depends on their shapes only.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._seen: set[object] = set()
        self._compiled: dict[object, Callable[..., Any]] = {}

    def __call__(self, *inputs: Tensor) -> Any:
        """The function's output.

        Raises:
            ValueError: it cannot be compiled, for want of a C++ compiler for example.
        """
        shape = tuple((x.shape, x.stride(), x.dtype, x.device) for x in inputs)
        if shape in self._compiled:
            return self._compiled[shape](*inputs)
        if shape not in self._seen:
            self._seen.add(shape)
            return self.function(*inputs)
        compiled = torch.compile(make_fx(self.function)(*inputs))
        try:
            result = compiled(*inputs)
        except Exception as error:  # whatever the compilers behind torch.compile raise
            raise ValueError(
                "relevance.compile=true: cannot be compiled on this machine "
                f"({type(error).__name__}: {str(error)[:200]}). It needs a C++ compiler; "
                "relevance.compile=false gives the same numbers"
            ) from error
        self._compiled[shape] = compiled
        return result
