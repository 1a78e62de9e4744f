"""The rules of sums, averages and other linear maps without parameters: the epsilon rule.

Notation: a input, y output, R relevance, L^T the transpose of a linear map L,
e(z) = z + 1e-6 sign(z) with e(0) = 1e-6 (Bach et al., PLoS ONE 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tff.relevance.rule import EPSILON, Operation, Rule, explains, stabilised, transposed


@explains(
    nn.AdaptiveAvgPool2d, nn.AvgPool2d, F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean, torch.sum,
)  # fmt: skip
class Mixture(Rule):
    """y = L a for a linear map L without parameters; R_a = a L^T(R / e(y))."""

    leaks = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        y, transpose = transposed(run, *inputs)
        shares = transpose(relevance / stabilised(y))
        return [a * share for a, share in zip(inputs, shares, strict=True)]

    def output_nonnegative(self) -> bool:
        return all(self.nonnegative)


@explains(
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate, torch.conv2d,
)  # fmt: skip
class SignedMixture(Mixture):
    """As `Mixture`, for maps that may have negative coefficients.

    Interpolation, and convolution with a fixed filter (anti-aliasing) that is no layer.
    """

    def output_nonnegative(self) -> bool:
        return False


@explains(torch.sub)
class Difference(Mixture):
    """y = u - v, and any sum with a factor, under the rule of `Mixture`.

    Shares are signed and may exceed 1. Of a sum with a constant the constant gets nothing.
    """

    several = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return [relevance] if len(inputs) == 1 else super().relevance(relevance, run, *inputs)

    def output_nonnegative(self) -> bool:
        return False


@explains(torch.add)
class Sum(Difference):
    """y = u + v; R_u = u R / e(y), R_v = v R / e(y).

    Maps are large here: each pass over them counts, and two new ones are enough.
    """

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        if len(inputs) == 1:
            return [relevance]
        u, v = inputs
        y = u + v
        spare = torch.copysign(y.new_tensor(EPSILON), y)
        q = torch.div(relevance, spare.add_(y), out=y)
        return [torch.mul(u, q, out=spare), q.mul_(v)]

    def output_nonnegative(self) -> bool:
        return all(self.nonnegative)
