"""A function of images, compiled for each shape of them that comes more than once."""

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
        function: of images and a second tensor; its course depends on their shapes only.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        self.function = function
        self._seen: set[object] = set()
        self._compiled: dict[object, Callable[[Tensor, Tensor], Any]] = {}

    def __call__(self, images: Tensor, seed: Tensor) -> Any:
        """The function's output.

        Raises:
            ValueError: it cannot be compiled, for want of a C++ compiler for example.
        """
        shape = (images.shape, images.stride(), images.dtype, images.device)
        if shape in self._compiled:
            return self._compiled[shape](images, seed)
        if shape not in self._seen:
            self._seen.add(shape)
            return self.function(images, seed)
        # Of a bound method `make_fx` would count `self` among the tensors.
        flat = make_fx(lambda images, seed: self.function(images, seed))(images, seed)
        compiled = torch.compile(flat)
        try:
            result = compiled(images, seed)
        except Exception as error:  # whatever the compilers behind torch.compile raise
            raise ValueError(
                "relevance.compile=true: cannot be compiled on this machine "
                f"({type(error).__name__}: {str(error)[:200]}). It needs a C++ compiler; "
                "relevance.compile=false gives the same numbers"
            ) from error
        self._compiled[shape] = compiled
        return result
