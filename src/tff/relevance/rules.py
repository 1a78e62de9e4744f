"""The rules: how the relevance of a layer's output is shared out among its inputs.

Notation: a input, w weight, y output, R relevance, [t]+ = max(t, 0), [t]- = min(t, 0),
e(z) = z + 1e-6 sign(z) with e(0) = 1e-6. Composite: Chandrasegaran et al. (ECCV 2022), released
code; rules: Bach et al. (PLoS ONE 2015), Montavon et al. (Pattern Recognition 2017).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tff.relevance.convolution import Convolution
from tff.relevance.rule import Operation, Rule, Shares, explains, stabilised


@explains(nn.Identity, nn.Dropout, nn.SiLU, nn.Hardswish, nn.GELU, F.silu, F.dropout, F.gelu)
class Pass(Rule):
    """R passes unchanged, also where the unit is off: y = f(a) elementwise."""

    keeps_inputs = False

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        return (relevance,)


@explains(nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, F.relu, torch.relu, "relu", "relu_")
class PassNonnegative(Pass):
    """As `Pass`, for a function that is never negative."""

    def output_nonnegative(self) -> bool:
        return True


@explains(nn.Flatten, torch.flatten, "flatten")
class Reshape(Rule):
    """Values keep their relevance when they are laid out anew."""

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        return (relevance.reshape(inputs[0].shape),)


@explains(nn.Conv2d)
class ZPlus(Rule):
    """z = w+ * [a]+ + w- * [a]-; R_a = [a]+ T(w+, R/z) + [a]- T(w-, R/z); biases are left out.

    Where z = 0 no input has spoken for the unit, and its relevance is lost.
    """

    def __init__(self, run: Operation, module: nn.Module | None, nonnegative: list[bool]) -> None:
        super().__init__(run, module, nonnegative)
        assert isinstance(module, nn.Conv2d)
        self.convolution = Convolution(module)
        self.positive = module.weight.clamp(min=0)
        self.negative = module.weight.clamp(max=0)

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        (a,), conv = inputs, self.convolution
        if self.nonnegative[0]:
            q = _quotient(relevance, conv.apply(a, self.positive))
            return (conv.transpose(q, self.positive, a).mul_(a),)
        up, down = a.clamp(min=0), a.clamp(max=0)
        z = conv.apply(up, self.positive).add_(conv.apply(down, self.negative))
        q = _quotient(relevance, z)
        back = conv.transpose(q, self.positive, a).mul_(up)
        return (back.addcmul_(conv.transpose(q, self.negative, a), down),)

    def output_nonnegative(self) -> bool:
        return False


def _quotient(relevance: Tensor, z: Tensor) -> Tensor:
    """R / z where z > 0, else 0; z is never negative but for rounding, and is overwritten."""
    quotient = torch.div(relevance, z, out=z) if relevance.dtype == z.dtype else relevance / z
    return quotient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


class Box(ZPlus):
    """z-beta rule of the first layer: inputs lie in [low, high], zero padding included.

    z = w * a - w+ * low - w- * high; R_a = a T(w, R/e(z)) - low T(w+, .) - high T(w-, .).
    """

    def __init__(self, first: ZPlus, low: float, high: float) -> None:
        self.__dict__.update(first.__dict__)
        self.low, self.high = low, high

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        (a,), conv = inputs, self.convolution
        low, high = torch.full_like(a, self.low), torch.full_like(a, self.high)
        terms = ((a, self.positive + self.negative), (-low, self.positive), (-high, self.negative))
        q = relevance / stabilised(sum((conv.apply(x, w) for x, w in terms), torch.zeros(())))
        return (sum((x * conv.transpose(q, w, a) for x, w in terms), torch.zeros(())),)


@explains(nn.Linear)
class Epsilon(Rule):
    """z = w a + b; R_a = a w^T (R / e(z)): the bias keeps its share."""

    def __init__(self, run: Operation, module: nn.Module | None, nonnegative: list[bool]) -> None:
        super().__init__(run, module, nonnegative)
        assert isinstance(module, nn.Linear)
        self.weight = module.weight

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        q = relevance / stabilised(self.run(*inputs))
        return (inputs[0] * (q @ self.weight),)

    def output_nonnegative(self) -> bool:
        return False


@explains(torch.add, "add")
class Sum(Rule):
    """y = u + v; R_u = u R / e(y), R_v = v R / e(y): shares are signed and may exceed 1."""

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        u, v = inputs
        q = relevance / stabilised(u + v)
        return u * q, q.mul_(v)


@explains(nn.AdaptiveAvgPool2d, nn.AvgPool2d)
class Mean(Rule):
    """m = mean(a) over a window of n; R_a = a / n R / e(m)."""

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        with torch.enable_grad():
            a = inputs[0].detach().requires_grad_()
            mean = self.run(a)
            (share,) = torch.autograd.grad(mean, a, relevance / stabilised(mean.detach()))
        return (inputs[0] * share,)


@explains(nn.MaxPool2d)
class Winner(Rule):
    """R goes to the largest value of a window, the first one where several are equal."""

    def __init__(self, run: Operation, module: nn.Module | None, nonnegative: list[bool]) -> None:
        super().__init__(run, module, nonnegative)
        assert isinstance(module, nn.MaxPool2d)
        self.pool = module

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        pool, a = self.pool, inputs[0]
        with torch.enable_grad():
            a = a.detach().requires_grad_()
            (share,) = torch.autograd.grad(pool(a), a, relevance)
        return (share,)


@explains(torch.mul, "mul")
class Gate(Rule):
    """y = x g with a gate g in [0, 1]: the feature map x gets all, the gate gets nothing."""

    keeps_inputs = False
    gate = 1  # position of the gate; set by the graph, which sees where a sigmoid ends

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        return (None, relevance) if self.gate == 0 else (relevance, None)
