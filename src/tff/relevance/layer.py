"""A layer and its transpose for any weights: what every rule for layers with weights is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from tff.relevance.rule import transposed


class Layer(Protocol):
    """A map that is linear in its input, without its weights and bias."""

    def pad(self, a: Tensor) -> Tensor:
        """The input with everything around it that `apply` does not add by itself."""

    def apply(self, a: Tensor, weight: Tensor) -> Tensor:
        """W a for a padded input, without bias."""

    def transpose(self, q: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """W^T q, of the shape of the padded input `like`."""

    def unpad(self, relevance: Tensor, a: Tensor) -> Tensor:
        """Relevance of the padded input -> relevance of the input `a`."""

    def column(self, bias: Tensor) -> Tensor:
        """A bias (C,), laid out so that it can be added to an output."""


class Dense:
    """A linear layer: (B, ..., N) -> (B, ..., M)."""

    def pad(self, a: Tensor) -> Tensor:
        return a

    def apply(self, a: Tensor, weight: Tensor) -> Tensor:
        return F.linear(a, weight)

    def transpose(self, q: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        return q @ weight

    def unpad(self, relevance: Tensor, a: Tensor) -> Tensor:
        return relevance

    def column(self, bias: Tensor) -> Tensor:
        return bias


class Convolution:
    """The geometry of a `Conv2d`: stride, padding, dilation, groups; (B, C, H, W) in and out.

    Zeros that lie evenly around the input are left to the convolution itself. Any other padding
    ("same", TensorFlow's "same", reflecting, repeating, circular) is laid around the input first,
    and a padded value's relevance goes back to the pixel that it was copied from.
    """

    def __init__(self, module: nn.Conv2d) -> None:
        self.kernel, self.stride = module.kernel_size, module.stride
        self.dilation, self.groups = module.dilation, module.groups
        self.padding: tuple[int, ...] = (0, 0)
        self.edges: Callable[[Tensor], list[int]] | None = None
        self.mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        if isinstance(module, Conv2dSame):
            self.edges = self._tensorflow_same
        elif self.mode == "constant" and not isinstance(module.padding, str):
            self.padding = module.padding
        else:
            around = list(module._reversed_padding_repeated_twice)
            self.edges = lambda _a: around

    def pad(self, a: Tensor) -> Tensor:
        return a if self.edges is None else F.pad(a, self.edges(a), self.mode)

    def apply(self, a: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(a, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, q: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        # Rows and columns behind the last stride were never seen; they come back as 0.
        behind = [
            (size + 2 * pad - dilation * (kernel - 1) - 1) % stride
            for size, pad, dilation, kernel, stride in zip(
                like.shape[-2:], self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        ]
        return F.conv_transpose2d(
            q, weight, None, self.stride, self.padding, behind, self.groups, self.dilation
        )

    def unpad(self, relevance: Tensor, a: Tensor) -> Tensor:
        if self.edges is None:
            return relevance
        left, _, top, _ = self.edges(a)
        if self.mode == "constant":
            return relevance[..., top : top + a.shape[2], left : left + a.shape[3]]
        _, transpose = transposed(self.pad, a)
        return transpose(relevance)[0]

    def column(self, bias: Tensor) -> Tensor:
        return bias.view(-1, 1, 1)

    def _tensorflow_same(self, a: Tensor) -> list[int]:
        """Zeros on the left, right, top and bottom; the odd one goes behind."""
        edges: list[int] = []
        for axis in (1, 0):
            size, stride = a.shape[2 + axis], self.stride[axis]
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            edges += [total // 2, total - total // 2]
        return edges


def layer_of(module: nn.Module) -> Layer:
    """The layer of a `Conv2d` or `Linear` module."""
    return Convolution(module) if isinstance(module, nn.Conv2d) else Dense()
