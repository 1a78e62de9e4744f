"""Rules for convolutions and linear layers: z+, epsilon, alpha-beta, gamma, w-square, flat, box.

Input i contributes c_ij to output j, and R is shared out in proportion: R_i = sum_j c_ij R_j / z_j
with z_j = sum_i c_ij. What c is makes the rule. As c is a sum of products x_i w_ij of a function x
of the input and a function w of the weight, z = sum W x and R = sum x W^T(R / z): a convolution
and a transposed one for each of these products.

Notation: a input, w weight, b bias, [t]+ = max(t, 0), [t]- = min(t, 0),
e(z) = z + 1e-6 sign(z) with e(0) = 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from tff.relevance.rules import Operation, Rule, stabilise, with_transpose

PRECISIONS = ("fp32", "tf32", "bf16")


class FullPrecision:
    """Convolutions in the precision of the network."""

    def narrow(self, x: Tensor) -> Tensor:
        """What goes into a convolution."""
        return x

    def wide(self, x: Tensor, like: Tensor) -> Tensor:
        """What comes out of it, in the precision of `like`."""
        return x


FULL = FullPrecision()


class BFloat16(FullPrecision):
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


def get_precision(name: str) -> FullPrecision:
    """The precision of convolutions by its name, one of `PRECISIONS`."""
    return BFloat16() if name == "bf16" else FULL


@contextmanager
def float32_precision(name: str) -> Iterator[None]:
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


class LinearMap(Protocol):
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
        _, transpose = with_transpose(self.pad, a)
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


def linear_map_of(module: nn.Module) -> LinearMap:
    """The layer of a `Conv2d` or `Linear` module."""
    return Convolution(module) if isinstance(module, nn.Conv2d) else Dense()


Products = list[tuple[Tensor, Tensor]]  # (function of the input, function of the weight)


class Weighted(Rule):
    """A rule of a layer with weights; what derives from it says what the products are.

    Args:
        precision: of the convolutions of the rule.
    """

    leaks = True

    def __init__(
        self,
        operation: object,
        module: nn.Module,
        nonnegative: list[bool],
        precision: FullPrecision = FULL,
    ) -> None:
        super().__init__(operation, module, nonnegative)
        self.layer = linear_map_of(module)
        weight, bias = module.weight, module.bias
        assert isinstance(weight, Tensor)
        self.precision = precision
        self.weight: Tensor = precision.narrow(weight)
        self.positive, self.negative = self.weight.clamp(min=0), self.weight.clamp(max=0)
        self.bias: Tensor | None = bias if isinstance(bias, Tensor) else None

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return [self.layer.unpad(self.share(relevance, inputs[0]), inputs[0])]

    def share(self, relevance: Tensor, a: Tensor) -> Tensor:
        """Relevance of the output -> relevance of the padded input `a`."""
        raise NotImplementedError

    def sum(self, products: Products) -> Tensor:
        """Sum of W x over the products: z, a new tensor."""
        narrow, wide = self.precision.narrow, self.precision.wide
        parts = (wide(self.layer.apply(narrow(x), w), x) for x, w in products)
        z = next(parts)
        for part in parts:
            z += part
        return z

    def back(self, q: Tensor, products: Products) -> Tensor:
        """Sum of x W^T q over the products, a new tensor."""
        narrow = self.precision.narrow(q)
        parts = (
            (self.precision.wide(self.layer.transpose(narrow, w, x), q), x) for x, w in products
        )
        first, x = next(parts)
        total = first.mul_(x)
        for part, x in parts:
            total.addcmul_(part, x)
        return total

    def lost_to_bias(self, relevance: Tensor, a: Tensor) -> Tensor | None:
        """How much of R (B, ...) the bias keeps, (B,); None where a rule leaves biases out."""
        return None


class ZPlus(Weighted):
    """c = [a w]+, biases left out (Bach et al. 2015, alpha 1 beta 0; Montavon et al. 2017).

    Where z = 0 no input has spoken for the unit, and its relevance is lost.
    """

    def share(self, relevance: Tensor, a: Tensor) -> Tensor:
        products = self.supporting(a)
        return self.back(quotient(relevance, self.sum(products)), products)

    def supporting(self, a: Tensor) -> Products:
        """[a w]+ = [a]+ [w]+ + [a]- [w]-."""
        a = self.layer.pad(a)
        if self.nonnegative[0]:
            return [(a, self.positive)]
        return [(a.clamp(min=0), self.positive), (a.clamp(max=0), self.negative)]


class Epsilon(Weighted):
    """c = a w, and the bias keeps its share: z = W a + b, stabilised (Bach et al. 2015)."""

    def share(self, relevance: Tensor, a: Tensor) -> Tensor:
        products = self.products(a)
        return self.back(relevance / stabilise(self.whole(products)), products)

    def products(self, a: Tensor) -> Products:
        return [(self.layer.pad(a), self.weight)]

    def constant(self) -> Tensor | None:
        """What the bias adds to z, (C,)."""
        return self.bias

    def whole(self, products: Products) -> Tensor:
        bias = self.constant()
        return self.sum(products) if bias is None else self.sum(products) + self.layer.column(bias)

    def lost_to_bias(self, relevance: Tensor, a: Tensor) -> Tensor:
        bias = self.constant()
        if bias is None:
            return relevance.new_zeros(len(relevance))
        z = stabilise(self.whole(self.products(a)))
        return (relevance / z * self.layer.column(bias)).flatten(1).sum(1)


class Linear(Rule):
    """A linear layer on vectors has one rule, at every place of a map that of convolutions.

    There it is a convolution of size 1.
    """

    leaks = True

    def __init__(self, on_vectors: Weighted, on_maps: Weighted) -> None:
        super().__init__(on_vectors.operation, on_vectors.module, on_vectors.nonnegative)
        self.on_vectors, self.on_maps = on_vectors, on_maps

    def of(self, a: Tensor) -> Weighted:
        return self.on_vectors if a.ndim == 2 else self.on_maps

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return self.of(inputs[0]).relevance(relevance, run, *inputs)

    def lost_to_bias(self, relevance: Tensor, a: Tensor) -> Tensor | None:
        return self.of(a).lost_to_bias(relevance, a)


def quotient(relevance: Tensor, z: Tensor) -> Tensor:
    """R / z, and 0 where z = 0; z is overwritten."""
    quotient = torch.div(relevance, z, out=z) if relevance.dtype == z.dtype else relevance / z
    return quotient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


class AlphaBeta(ZPlus):
    """R = alpha times that of c = [a w]+ minus (alpha - 1) times that of c = [a w]-.

    Bach et al. 2015, eq. 60; biases left out.
    """

    def __init__(self, *args: Any, alpha: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha = alpha

    def share(self, relevance: Tensor, a: Tensor) -> Tensor:
        padded = self.layer.pad(a)
        against = [(padded.clamp(min=0), self.negative), (padded.clamp(max=0), self.positive)]
        less = self.back(quotient(relevance, self.sum(against)), against)
        return super().share(relevance, a).mul_(self.alpha).sub_(less, alpha=self.alpha - 1)


class Gamma(Epsilon):
    """c = a w + gamma [a w]+, the bias likewise: what speaks for a unit weighs more.

    Montavon et al. 2019 (for inputs of any sign here).
    """

    def __init__(self, *args: Any, gamma: float = 0.25, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gamma = gamma

    def products(self, a: Tensor) -> Products:
        a = self.layer.pad(a)
        up, down = self.gamma * a.clamp(min=0), self.gamma * a.clamp(max=0)
        return [(a, self.weight), (up, self.positive), (down, self.negative)]

    def constant(self) -> Tensor | None:
        return None if self.bias is None else self.bias + self.gamma * self.bias.clamp(min=0)


class WSquare(Weighted):
    """c = w^2, whatever the input (Montavon et al. 2017); biases left out."""

    def share(self, relevance: Tensor, a: Tensor) -> Tensor:
        products = [(self.layer.pad(torch.ones_like(a)), self.importance())]
        return self.back(quotient(relevance, self.sum(products)), products)

    def importance(self) -> Tensor:
        """What an input counts for, whatever its value."""
        return self.precision.narrow(self.weight.square())


class Flat(WSquare):
    """c = 1: R is shared out evenly among the inputs (Lapuschkin et al. 2019)."""

    def importance(self) -> Tensor:
        return torch.ones_like(self.weight)


class ZBox(Weighted):
    """c = a w - low [w]+ - high [w]-, for inputs in [low, high] (z-beta, Montavon et al. 2017).

    Zeros around the image bring nothing, neither to a nor to the bounds.
    """

    def __init__(self, *args: Any, low: float, high: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.low, self.high = low, high

    def share(self, relevance: Tensor, a: Tensor) -> Tensor:
        low, high = torch.full_like(a, -self.low), torch.full_like(a, -self.high)
        padded = [self.layer.pad(x) for x in (a, low, high)]
        products = list(zip(padded, (self.weight, self.positive, self.negative), strict=True))
        return self.back(relevance / stabilise(self.sum(products)), products)


#: The rules that convolutions can have, by their names in `relevance.rule`.
CONVOLUTIONS: dict[str, type[Weighted]] = {
    "zplus": ZPlus,
    "alphabeta": AlphaBeta,
    "epsilon": Epsilon,
    "gamma": Gamma,
    "wsquare": WSquare,
    "flat": Flat,
}
