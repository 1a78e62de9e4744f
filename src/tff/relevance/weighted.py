"""The rules of layers with weights (convolution, linear), told apart by what they add up.

Input i contributes c_ij to output j, and R is shared out in proportion: R_i = sum_j c_ij R_j / z_j
with z_j = sum_i c_ij. What c is makes the rule. As c is a sum of products x_i w_ij of a function x
of the input and a function w of the weight, z = sum W x and R = sum x W^T(R / z): a convolution
and a transposed one for each of these products.

Notation: a input, w weight, b bias, [t]+ = max(t, 0), [t]- = min(t, 0),
e(z) = z + 1e-6 sign(z) with e(0) = 1e-6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tff.relevance.layer import layer_of
from tff.relevance.precision import FULL, Full
from tff.relevance.rule import Operation, Rule, stabilised

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
        precision: Full = FULL,
    ) -> None:
        super().__init__(operation, module, nonnegative)
        self.layer = layer_of(module)
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
        return self.back(relevance / stabilised(self.whole(products)), products)

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
        z = stabilised(self.whole(self.products(a)))
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
