"""Rules of relevance: what a rule is, and those for everything but convolutions.

`mixtures.py` has those of sums and averages, `weighted.py` those of layers with weights.

Notation: a input, y output, R relevance, L^T the transpose of a linear map L,
e(z) = z + 1e-6 sign(z) with e(0) = 1e-6. Composite: Chandrasegaran et al. (ECCV 2022), released
code; epsilon rule: Bach et al. (PLoS ONE 2015).

Notation: a input, y output, R relevance, L^T the transpose of a linear map L,
e(z) = z + 1e-6 sign(z) with e(0) = 1e-6 (Bach et al., PLoS ONE 2015).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tff.detectors.trace import BATCH_NORM, LEAVES, UNCHANGED

# The released code keeps its epsilons in single precision, also in float64 runs.
EPSILON = torch.tensor(1e-6).item()

Operation = Callable[..., Tensor]
Transpose = Callable[[Tensor], tuple[Tensor, ...]]


class Rule:
    """The way back through an operation.

    Args:
        operation: module class, function of `torch`, or name of a tensor method.
        module: the module that holds the parameters, where there is one.
        nonnegative: for each tensor that brings a part of the logit, whether it is known never to
            be negative.
    """

    #: Does the way back need the inputs?
    keeps_inputs: ClassVar[bool] = True
    #: May several tensors bring a part of the logit?
    multiple_inputs: ClassVar[bool] = False
    #: May relevance be lost on the way back?
    leaks: ClassVar[bool] = False

    def __init__(
        self, operation: object, module: nn.Module | None, nonnegative: list[bool]
    ) -> None:
        self.operation = operation
        self.module = module
        self.nonnegative = nonnegative

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        """Relevance of the output -> relevance of each input.

        Args:
            relevance: of the output, of its shape.
            run: the operation, called with the inputs alone; what else it reads (a gate, a size)
                it knows.
            inputs: the tensors that bring a part of the logit.
        """
        raise NotImplementedError

    def output_nonnegative(self) -> bool:
        """Whether the output is known never to be negative."""
        return False


RULES: dict[object, type[Rule]] = {}
R = TypeVar("R", bound=type[Rule])


def register_rule(*operations: object) -> Callable[[R], R]:
    """Make a rule serve these module classes, functions of `torch` and names of tensor methods."""

    def register(rule: R) -> R:
        RULES.update(dict.fromkeys(operations, rule))
        LEAVES.update(o for o in operations if isinstance(o, type))
        return rule

    return register


def with_transpose(run: Operation, *inputs: Tensor) -> tuple[Tensor, Transpose]:
    """The output y of a linear map L, and the function q -> L^T q, one tensor an input."""
    y, transpose = torch.func.vjp(run, *inputs)  # type: ignore[misc]  # three only with has_aux
    return y, transpose


def stabilise(z: Tensor) -> Tensor:
    """e(z): z, moved away from zero by EPSILON."""
    return z + torch.copysign(z.new_tensor(EPSILON), z)


@register_rule(
    nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.Mish,
    nn.Tanh, nn.Hardtanh, nn.Softsign, nn.LogSigmoid, F.silu, F.hardswish, F.gelu, F.leaky_relu,
    F.prelu, torch.prelu, F.elu, F.celu, F.selu, F.mish, F.tanh, torch.tanh, F.hardtanh,
    F.softsign, F.logsigmoid, torch.neg,
)  # fmt: skip
class Pass(Rule):
    """y = f(a), element by element: R passes unchanged, also where the unit is off.

    Thus also through a scale and a shift of each channel, whose shift gets nothing (as the bias of
    a convolution).
    """

    keeps_inputs = False

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return [relevance]


@register_rule(
    nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, F.relu, F.relu6, torch.relu,
    torch.sigmoid, F.sigmoid, F.hardsigmoid, F.softplus,
)  # fmt: skip
class PassNonnegative(Pass):
    """As `Pass`, for a function that is never negative."""

    def output_nonnegative(self) -> bool:
        return True


@register_rule(*UNCHANGED, "clone")
class PassUnchanged(Pass):
    """As `Pass`, for what does nothing in eval mode."""

    def output_nonnegative(self) -> bool:
        return all(self.nonnegative)


@register_rule(BATCH_NORM, F.batch_norm)
class PassNorm(Pass):
    """BatchNorm that no convolution could take in: a scale and a shift of each channel.

    timm's BatchNorm carries the activation that follows.
    """

    def output_nonnegative(self) -> bool:
        return isinstance(getattr(self.module, "act", None), nn.ReLU | nn.ReLU6)


@register_rule(
    nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
    nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d,
    torch.flatten, torch.cat, torch.concat, torch.stack, torch.permute, torch.transpose,
    torch.reshape, torch.squeeze, torch.unsqueeze, torch.chunk, torch.split, torch.tensor_split,
    torch.unbind, torch.flip, torch.roll, F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle,
    F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d, operator.getitem, "view", "reshape",
    "expand", "expand_as", "repeat",
)  # fmt: skip
class Copy(Rule):
    """Each value of the output is a copy of one of the inputs: its R goes back there.

    Of a max pool that is the largest value of the window, the first where several are equal.
    """

    multiple_inputs = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        _, transpose = with_transpose(run, *inputs)
        return list(transpose(relevance))

    def output_nonnegative(self) -> bool:
        return all(self.nonnegative)


@register_rule(nn.ConstantPad2d, nn.ZeroPad2d, F.pad)
class Pad(Copy):
    """As `Route`; what lands on the constant around the image is lost.

    Under z+ nothing lands on zeros.
    """

    leaks = True

    def output_nonnegative(self) -> bool:
        return False


@register_rule(nn.LayerNorm, nn.GroupNorm)
class Normalisation(Rule):
    """y = w (a - mean(a)) / s + b, with s held constant (Ali et al., ICML 2022).

    w and b pass R on, as those of BatchNorm; then the epsilon rule for n = (a - mean(a)) / s.
    """

    leaks = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        (a,), shape = inputs, inputs[0].shape
        groups, eps = self._groups(a)
        flat, R = a.reshape(groups), relevance.reshape(groups)
        variance, mean = torch.var_mean(flat, -1, correction=0, keepdim=True)
        s = (variance + eps).sqrt()
        q = R / stabilise((flat - mean) / s)
        return [(flat / s * (q - q.mean(-1, keepdim=True))).reshape(shape)]

    def _groups(self, a: Tensor) -> tuple[tuple[int, ...], float]:
        """The shape in which each row holds the values that are normalised together, and eps."""
        if isinstance(self.module, nn.GroupNorm):
            return (len(a), self.module.num_groups, -1), self.module.eps
        assert isinstance(self.module, nn.LayerNorm)
        return (*a.shape[: -len(self.module.normalized_shape)], -1), self.module.eps


@register_rule(torch.mul, torch.div)
class Gate(Pass):
    """y = x g with a gate g in [0, 1], or with a constant: the feature map x gets all."""

    def output_nonnegative(self) -> bool:
        return all(self.nonnegative)


@register_rule(
    nn.AdaptiveAvgPool2d, nn.AvgPool2d, F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean, torch.sum,
)  # fmt: skip
class Mixture(Rule):
    """y = L a for a linear map L without parameters; R_a = a L^T(R / e(y))."""

    leaks = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        y, transpose = with_transpose(run, *inputs)
        shares = transpose(relevance / stabilise(y))
        return [a * share for a, share in zip(inputs, shares, strict=True)]

    def output_nonnegative(self) -> bool:
        return all(self.nonnegative)


@register_rule(
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate, torch.conv2d,
)  # fmt: skip
class SignedMixture(Mixture):
    """As `Mixture`, for maps that may have negative coefficients.

    Interpolation, and convolution with a fixed filter (anti-aliasing) that is no layer.
    """

    def output_nonnegative(self) -> bool:
        return False


@register_rule(torch.sub)
class Difference(Mixture):
    """y = u - v, and any sum with a factor, under the rule of `Mixture`.

    Shares are signed and may exceed 1. Of a sum with a constant the constant gets nothing.
    """

    multiple_inputs = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return [relevance] if len(inputs) == 1 else super().relevance(relevance, run, *inputs)

    def output_nonnegative(self) -> bool:
        return False


@register_rule(torch.add)
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
