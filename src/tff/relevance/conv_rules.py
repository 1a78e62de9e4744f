"""Rules for convolutions and linear layers: z+, epsilon, alpha-beta, gamma, w^2, flat, z^B.

Input i contributes c_ij to output j, and R is distributed in proportion: R_i = sum_j c_ij R_j / z_j
with z_j = sum_i c_ij. Rules differ in c, which is always a sum of products x_i w_ij, x a function
of the input and w one of the weight. So z = sum W x and R = sum x W^T(R / z): a convolution and a
transposed convolution per product.

Notation: a input, w weight, b bias, [t]+ = max(t, 0), [t]- = min(t, 0),
e(z) = z + epsilon sign(z) with e(0) = epsilon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from tff.relevance.rules import EPSILON, Operation, Rule, with_transpose

PRECISIONS = ("fp32", "tf32", "bf16")


class FullPrecision:
    """Convolutions in the precision of the network."""

    def lower(self, x: Tensor) -> Tensor:
        """Input of a convolution, in its precision."""
        return x

    def restore(self, x: Tensor, like: Tensor) -> Tensor:
        """Output of a convolution, in the precision of `like`."""
        return x


class BFloat16(FullPrecision):
    """Convolutions in bfloat16, accumulated in float32 and rounded at the end.

    A CPU without bfloat16 arithmetic would be about fifty times slower; there the factors are
    rounded to bfloat16 and multiplied in float32.
    """

    def lower(self, x: Tensor) -> Tensor:
        rounded = x.to(torch.bfloat16)
        return rounded if _has_bfloat16(x.device.type) else rounded.float()

    def restore(self, x: Tensor, like: Tensor) -> Tensor:
        return x.to(torch.bfloat16).to(like.dtype)


@cache
def _has_bfloat16(device: str) -> bool:
    return device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def float32_precision(name: str) -> Iterator[None]:
    """Context in which a GPU computes float32 convolutions in TF32 (`tf32`) or in full precision.

    By default PyTorch lets cuDNN use TF32, which `fp32` must rule out.
    """
    cudnn: Any = torch.backends.cudnn  # not in the type stubs
    switches = (cudnn.conv, torch.backends.cuda.matmul)
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if name == "tf32" else "ieee"
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


class Dense:
    """A linear layer without its weights and bias, (B, ..., N) -> (B, ..., M)."""

    def pad(self, a: Tensor) -> Tensor:
        """The input with all padding that `apply` does not add itself."""
        return a

    def apply(self, a: Tensor, weight: Tensor) -> Tensor:
        """W a for a padded input, without bias."""
        return F.linear(a, weight)

    def transpose(self, q: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """W^T q, in the shape of the padded input `like`."""
        return q @ weight

    def unpad(self, relevance: Tensor, a: Tensor) -> Tensor:
        """Relevance of the input `a`, given that of the padded input."""
        return relevance

    def column(self, bias: Tensor) -> Tensor:
        """A bias (C,) in a shape that broadcasts over an output."""
        return bias


class Convolution(Dense):
    """Geometry of a `Conv2d`: stride, padding, dilation, groups; (B, C, H, W) in and out.

    Symmetric zero padding is left to the convolution. Any other padding ("same", TensorFlow's
    "same", reflect, replicate, circular) is added first, and the relevance of a padded value
    returns to the pixel that it was copied from.
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
        # Rows and columns beyond the last stride are not read; their relevance is 0.
        unread = [
            (size + 2 * pad - dilation * (kernel - 1) - 1) % stride
            for size, pad, dilation, kernel, stride in zip(
                like.shape[-2:], self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        ]
        return F.conv_transpose2d(
            q, weight, None, self.stride, self.padding, unread, self.groups, self.dilation
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
        """Zeros on the left, right, top and bottom; an odd one goes right or below."""
        edges: list[int] = []
        for axis in (1, 0):
            size, stride = a.shape[2 + axis], self.stride[axis]
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            edges += [total // 2, total - total // 2]
        return edges


Products = list[tuple[Tensor, Tensor]]  # (function of the input, function of the weight)


class Weighted(Rule):
    """Base of the rules of layers with weights; a subclass defines the products.

    Args:
        operation: module class.
        module: a `Conv2d` or `Linear`.
        nonnegative: see `Rule`.
        epsilon: see `Rule`.
        precision: of the convolutions of the rule, one of `PRECISIONS`.
    """

    leaks = True

    def __init__(
        self,
        operation: object,
        module: nn.Module,
        nonnegative: list[bool],
        epsilon: float = EPSILON,
        precision: str = "fp32",
    ) -> None:
        super().__init__(operation, module, nonnegative, epsilon)
        self.map = Convolution(module) if isinstance(module, nn.Conv2d) else Dense()
        weight, bias = module.weight, module.bias
        assert isinstance(weight, Tensor)
        self.precision = BFloat16() if precision == "bf16" else FullPrecision()
        self.weight: Tensor = self.precision.lower(weight)
        self.positive, self.negative = self.weight.clamp(min=0), self.weight.clamp(max=0)
        self.bias: Tensor | None = bias if isinstance(bias, Tensor) else None

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return [self.map.unpad(self.distribute(relevance, inputs[0]), inputs[0])]

    def distribute(self, relevance: Tensor, a: Tensor) -> Tensor:
        """Relevance of the input `a` after padding, given that of the output."""
        raise NotImplementedError

    def sum(self, products: Products) -> Tensor:
        """z, the sum of W x over the products, as a new tensor."""
        lower, restore = self.precision.lower, self.precision.restore
        parts = (restore(self.map.apply(lower(x), w), x) for x, w in products)
        z = next(parts)
        for part in parts:
            z += part
        return z

    def back(self, q: Tensor, products: Products) -> Tensor:
        """Sum of x W^T q over the products, as a new tensor."""
        lower, restore = self.precision.lower(q), self.precision.restore
        parts = ((restore(self.map.transpose(lower, w, x), q), x) for x, w in products)
        first, x = next(parts)
        total = first.mul_(x)
        for part, x in parts:
            total.addcmul_(part, x)
        return total


class ZPlus(Weighted):
    """c = [a w]+, biases ignored (Bach et al. 2015, alpha 1 beta 0; Montavon et al. 2017).

    Where z = 0 no input supports the unit, and its relevance is lost.
    """

    def distribute(self, relevance: Tensor, a: Tensor) -> Tensor:
        a = self.map.pad(a)
        if self.nonnegative[0]:
            products = [(a, self.positive)]
        else:  # [a w]+ = [a]+ [w]+ + [a]- [w]-
            products = [(a.clamp(min=0), self.positive), (a.clamp(max=0), self.negative)]
        return self.back(quotient(relevance, self.sum(products)), products)


class Epsilon(Weighted):
    """c = a w, and the bias absorbs its share: z = W a + b, stabilised (Bach et al. 2015)."""

    def distribute(self, relevance: Tensor, a: Tensor) -> Tensor:
        products = [(self.map.pad(a), self.weight)]
        return self.back(relevance / self.stabilise(self.output(products)), products)

    def output(self, products: Products) -> Tensor:
        """Z with the contribution of the bias."""
        z = self.sum(products)
        return z if self.bias is None else z.add_(self.map.column(self.bias))

    def lost_to_constants(self, relevance: Tensor, parts: list[Tensor], *inputs: Tensor) -> Tensor:
        if self.bias is None:
            return relevance.new_zeros(len(relevance))
        z = self.stabilise(self.output([(self.map.pad(inputs[0]), self.weight)]))
        return (relevance / z * self.map.column(self.bias)).flatten(1).sum(1)


class Linear(Rule):
    """Rule of a linear layer: one for vectors, and that of convolutions for maps and tokens.

    Applied at every position of a map, a linear layer is a convolution of size 1.
    """

    leaks = True

    def __init__(self, on_vectors: Weighted, on_maps: Weighted) -> None:
        super().__init__(
            on_vectors.operation, on_vectors.module, on_vectors.nonnegative, on_vectors.epsilon
        )
        self.on_vectors, self.on_maps = on_vectors, on_maps
        self.keeps_output = on_maps.keeps_output

    def share(
        self, relevance: Tensor, run: Operation, *inputs: Tensor
    ) -> tuple[list[Tensor], Tensor | None]:
        if inputs[0].ndim == 2:
            return self.on_vectors.share(relevance, run, inputs[0])
        return self.on_maps.share(relevance, run, *inputs)

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return self.share(relevance, run, *inputs)[0]


def quotient(relevance: Tensor, z: Tensor) -> Tensor:
    """R / z, and 0 where z = 0; z is overwritten."""
    quotient = torch.div(relevance, z, out=z) if relevance.dtype == z.dtype else relevance / z
    return quotient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


class AlphaBeta(ZPlus):
    """R = alpha times that of c = [a w]+ minus (alpha - 1) times that of c = [a w]-.

    Bach et al. 2015, eq. 60; biases ignored.
    """

    def __init__(self, *args: Any, alpha: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alpha = alpha

    def distribute(self, relevance: Tensor, a: Tensor) -> Tensor:
        padded = self.map.pad(a)
        products = [(padded.clamp(min=0), self.negative), (padded.clamp(max=0), self.positive)]
        negative = self.back(quotient(relevance, self.sum(products)), products)
        positive = super().distribute(relevance, a)
        return positive.mul_(self.alpha).sub_(negative, alpha=self.alpha - 1)


class Gamma(Weighted):
    """c = a w + gamma [a w]+ where the unit's output is positive, a w + gamma [a w]- elsewhere.

    What speaks for the sign of the output weighs more, the bias likewise, so that |z| is at least
    gamma times the sum of it: contributions that cancel cannot make relevance diverge. Montavon et
    al. 2019, whose outputs are never negative; for both signs as in zennit (Anders et al. 2021).
    """

    def __init__(self, *args: Any, gamma: float = 0.25, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gamma = gamma

    def distribute(self, relevance: Tensor, a: Tensor) -> Tensor:
        sides = self.products(a)
        z, weights, _ = self.strengthened(sides)
        q = relevance / self.stabilise(z)
        pro, contra = (self.back(q * w, side) for w, side in zip(weights, sides, strict=True))
        return pro.add_(contra)

    def products(self, a: Tensor) -> tuple[Products, Products]:
        """Products whose sums are [a w]+ and [a w]-."""
        a = self.map.pad(a)
        if self.nonnegative[0]:
            return [(a, self.positive)], [(a, self.negative)]
        up, down = a.clamp(min=0), a.clamp(max=0)
        return [(up, self.positive), (down, self.negative)], [
            (up, self.negative),
            (down, self.positive),
        ]

    def strengthened(
        self, sides: tuple[Products, Products]
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """z, the factors 1 + gamma or 1 of [a w]+ and [a w]-, and what the bias contributes."""
        pro, contra = (self.sum(products) for products in sides)
        bias = pro.new_zeros(()) if self.bias is None else self.map.column(self.bias)
        up = (pro + contra + bias >= 0).to(pro.dtype)  # a bool times gamma is float32
        strong, weak = 1 + self.gamma * up, 1 + self.gamma * (1 - up)
        bias = strong * bias.clamp(min=0) + weak * bias.clamp(max=0)
        return strong * pro + weak * contra + bias, (strong, weak), bias

    def lost_to_constants(self, relevance: Tensor, parts: list[Tensor], *inputs: Tensor) -> Tensor:
        if self.bias is None:
            return relevance.new_zeros(len(relevance))
        z, _, bias = self.strengthened(self.products(inputs[0]))
        return (relevance / self.stabilise(z) * bias).flatten(1).sum(1)


class _OnTokens(Weighted):
    """Base of rules of linear layers that use the output y of the forward pass instead of z.

    A transformer is made of large matrix products, and each is as dear as its forward pass.
    """

    keeps_output = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return self.share(relevance, run, *inputs)[0]

    def kept(self, q: Tensor, bias: Tensor | None) -> Tensor:
        """(B,) sum of q b over tokens and outputs."""
        return q.new_zeros(len(q)) if bias is None else q.flatten(1, -2).sum(1) @ bias


class EpsilonOnTokens(_OnTokens):
    """`Epsilon` of a linear layer, in one matrix product: y is z."""

    def share(
        self, relevance: Tensor, run: Operation, *inputs: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        a, y = inputs
        q = relevance / self.stabilise(y)
        return [self.back(q, [(a, self.weight)])], self.kept(q, self.bias)


class GammaOnTokens(_OnTokens, Gamma):
    """`Gamma` of a linear layer, in three matrix products.

    With [t]+ = (t + |t|) / 2 and [t]- = (t - |t|) / 2, contributions become
    c = (1 + gamma / 2) a w + s (gamma / 2) |a| |w|, where s is the sign of the output y, and
    z = (1 + gamma / 2) y + s (gamma / 2) (|W| |a| + |b|).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.absolute = self.weight.abs()

    def share(
        self, relevance: Tensor, run: Operation, *inputs: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        a, y = inputs
        sign, half, sizes = torch.where(y >= 0, 1, -1).to(y.dtype), self.gamma / 2, a.abs()
        size = None if self.bias is None else self.bias.abs()
        z = self.sum([(sizes, self.absolute)])
        if size is not None:
            z += size
        z = z.mul_(sign * half).add_(y, alpha=1 + half)
        q = relevance / self.stabilise(z)
        plain, signed = q * (1 + half), q * (sign * half)
        part = self.back(plain, [(a, self.weight)])
        part.add_(self.back(signed, [(sizes, self.absolute)]))
        return [part], self.kept(plain, self.bias) + self.kept(signed, size)


class WSquare(Weighted):
    """c = w^2, independent of the input (Montavon et al. 2017); biases ignored."""

    def distribute(self, relevance: Tensor, a: Tensor) -> Tensor:
        products = [(self.map.pad(torch.ones_like(a)), self.contribution())]
        return self.back(quotient(relevance, self.sum(products)), products)

    def contribution(self) -> Tensor:
        """C for each weight."""
        return self.precision.lower(self.weight.square())


class Flat(WSquare):
    """c = 1: R is distributed evenly over the inputs (Lapuschkin et al. 2019)."""

    def contribution(self) -> Tensor:
        return torch.ones_like(self.weight)


class ZBox(Weighted):
    """z^B rule: c = a w - low [w]+ - high [w]-, for inputs in [low, high] (Montavon et al. 2017).

    Zero padding contributes nothing, neither to a nor to the bounds.
    """

    def __init__(self, *args: Any, low: float, high: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.low, self.high = low, high

    def distribute(self, relevance: Tensor, a: Tensor) -> Tensor:
        low, high = torch.full_like(a, -self.low), torch.full_like(a, -self.high)
        padded = [self.map.pad(x) for x in (a, low, high)]
        products = list(zip(padded, (self.weight, self.positive, self.negative), strict=True))
        return self.back(relevance / self.stabilise(self.sum(products)), products)


#: Rules of convolutions by their names in `relevance.rule`.
CONVOLUTIONS: dict[str, type[Weighted]] = {
    "zplus": ZPlus,
    "alphabeta": AlphaBeta,
    "epsilon": Epsilon,
    "gamma": Gamma,
    "wsquare": WSquare,
    "flat": Flat,
}
#: Rules that linear layers applied to tokens have in place of these, equal to them.
ON_TOKENS: dict[type[Weighted], type[Weighted]] = {Epsilon: EpsilonOnTokens, Gamma: GammaOnTokens}
