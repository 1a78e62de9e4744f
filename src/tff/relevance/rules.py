"""Relevance rules of operations; `conv_rules` has those with weights, `attention_rules` attention.

Notation: a input, y output, R relevance, L^T the transpose of a linear map L, and
e(z) = z + epsilon sign(z) with e(0) = epsilon (Bach et al., PLoS ONE 2015). Composite:
Chandrasegaran et al. (ECCV 2022), released code.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch
from timm.layers.attention import maybe_add_mask
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import _patch_merging_pad

from tff.detectors.attention import join_windows, split_windows
from tff.detectors.feature_maps import TIMM_ACTIVATIONS
from tff.detectors.trace import BATCH_NORM, LEAVES, UNCHANGED

#: Of the released code, which has it in single precision even in float64 runs.
EPSILON = torch.tensor(1e-6).item()

#: Operations that put several tensors side by side.
JOINS = {torch.cat, torch.concat, torch.stack}

Operation = Callable[..., Tensor]
Transpose = Callable[[Tensor], tuple[Tensor, ...]]


class Rule:
    """How relevance passes back through an operation.

    Args:
        operation: module class, function of `torch`, or name of a tensor method.
        module: with the parameters, if there are any.
        nonnegative: for each input that carries a part of the logit, whether it is known to be
            nonnegative.
        epsilon: moves denominators away from zero.
    """

    #: Whether `relevance` needs the inputs.
    keeps_inputs: ClassVar[bool] = True
    #: Whether `relevance` needs the output too, which then follows the inputs.
    keeps_output: bool = False
    #: Whether several inputs may carry a part of the logit.
    multiple_inputs: ClassVar[bool] = False
    #: Whether relevance may be lost.
    leaks: ClassVar[bool] = False
    #: Whether the output is nonnegative if all inputs are.
    keeps_sign: ClassVar[bool] = False

    def __init__(
        self,
        operation: object,
        module: nn.Module | None,
        nonnegative: list[bool],
        epsilon: float = EPSILON,
    ) -> None:
        self.operation, self.module, self.nonnegative = operation, module, nonnegative
        self.epsilon = epsilon

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        """Relevance of each input, given that of the output.

        Args:
            relevance: of the output, in its shape.
            run: the operation as a function of these inputs, all others (a gate, a size) fixed.
            inputs: the tensors that carry a part of the logit; none unless `keeps_inputs`. Then
                the output, if `keeps_output`.
        """
        raise NotImplementedError

    def lost_to_constants(
        self, relevance: Tensor, parts: list[Tensor], *inputs: Tensor
    ) -> Tensor | None:
        """Part of the relevance of the output that constants keep, (B,); None if none ever do.

        Constants are biases, position embeddings, class tokens.

        Args:
            relevance: of the output.
            parts: relevance of each input.
            inputs: as in `relevance`.
        """
        return None

    def share(
        self, relevance: Tensor, run: Operation, *inputs: Tensor
    ) -> tuple[list[Tensor], Tensor | None]:
        """`relevance` and `lost_to_constants` together, where that saves work."""
        parts = self.relevance(relevance, run, *inputs)
        return parts, self.lost_to_constants(relevance, parts, *inputs)

    def output_nonnegative(self) -> bool:
        """Whether the output is known to be nonnegative."""
        return self.keeps_sign and all(self.nonnegative)

    def stabilise(self, z: Tensor) -> Tensor:
        """e(z): z moved away from zero by epsilon."""
        return z + torch.copysign(z.new_tensor(self.epsilon), z)


RULES: dict[object, type[Rule]] = {}
R = TypeVar("R", bound=type[Rule])


def register_rule(*operations: object) -> Callable[[R], R]:
    """Class decorator: use the rule for these module classes, torch functions and tensor methods.

    Registered module classes are not traced into.
    """

    def register(rule: R) -> R:
        RULES.update(dict.fromkeys(operations, rule))
        LEAVES.update(o for o in operations if isinstance(o, type))
        return rule

    return register


def with_transpose(run: Operation, *inputs: Tensor) -> tuple[Tensor, Transpose]:
    """The output of a linear map L, and the function q -> L^T q, one tensor per input."""
    y, transpose = torch.func.vjp(run, *inputs)  # type: ignore[misc]  # three only with has_aux
    return y, transpose


@register_rule(
    nn.SiLU, nn.Hardswish, nn.GELU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.Mish,
    nn.Tanh, nn.Hardtanh, nn.Softsign, nn.LogSigmoid, F.silu, F.hardswish, F.gelu, F.leaky_relu,
    F.prelu, torch.prelu, F.elu, F.celu, F.selu, F.mish, F.tanh, torch.tanh, F.hardtanh,
    F.softsign, F.logsigmoid, torch.neg, nn.RMSNorm, F.normalize,
    *TIMM_ACTIVATIONS,
)  # fmt: skip
class Pass(Rule):
    """y = f(a) elementwise: R passes unchanged, even where the unit is off.

    Also through a scale and shift per channel, whose shift receives nothing (like the bias of a
    convolution), and through an RMSNorm or a division by the norm, which are held constant: then
    they scale each value.
    """

    keeps_inputs = False

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return [relevance]


@register_rule(
    nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, F.relu, F.relu6, torch.relu,
    torch.sigmoid, F.sigmoid, F.hardsigmoid, F.softplus,
)  # fmt: skip
class PassNonnegative(Pass):
    """`Pass` for functions with nonnegative values."""

    def output_nonnegative(self) -> bool:
        return True


@register_rule(*UNCHANGED, torch.clone)
class PassUnchanged(Pass):
    """`Pass` for operations that do nothing in eval mode."""

    keeps_sign = True


@register_rule(BATCH_NORM, F.batch_norm)
class PassNorm(Pass):
    """`Pass` for a BatchNorm that was not fused: a scale and shift per channel.

    timm's BatchNorm contains the activation that follows.
    """

    def output_nonnegative(self) -> bool:
        return isinstance(getattr(self.module, "act", None), nn.ReLU | nn.ReLU6)


@register_rule(
    nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
    nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d,
    torch.flatten, torch.cat, torch.concat, torch.stack, torch.permute, torch.transpose,
    torch.reshape, torch.squeeze, torch.unsqueeze, torch.chunk, torch.split, torch.tensor_split,
    torch.unbind, torch.unflatten, torch.flip, torch.roll, F.pixel_shuffle, F.pixel_unshuffle,
    F.channel_shuffle, F.max_pool2d, torch.max_pool2d, F.adaptive_max_pool2d, operator.getitem,
    torch.swapaxes, torch.amax, "view", "reshape", "reshape_as", "view_as", "expand", "expand_as",
    "repeat", join_windows,
)  # fmt: skip
class Copy(Rule):
    """Each output value is a copy of one input value, which receives its R.

    For max pooling that is the largest value of the window, the first one in a tie; equal values
    share the relevance of `torch.amax`.
    """

    multiple_inputs = True
    keeps_sign = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        _, transpose = with_transpose(run, *inputs)
        return list(transpose(relevance))


class CopyBesideConstants(Copy):
    """`Copy` of a concatenation with constants, such as class tokens, which keep their R."""

    leaks = True
    keeps_sign = False

    def lost_to_constants(self, relevance: Tensor, parts: list[Tensor], *inputs: Tensor) -> Tensor:
        return total(relevance) - sum(total(part) for part in parts)


@register_rule(
    nn.ConstantPad2d, nn.ZeroPad2d, F.pad, pad_same, split_windows, _patch_merging_pad,
    torch.masked_fill,
)  # fmt: skip
class Pad(Copy):
    """`Copy` with constants around the image: their R is lost (zeros receive nothing under z+)."""

    leaks = True
    keeps_sign = False


class Affine(Rule):
    """y = s a + t with constants, by the epsilon rule: R_a = s a R / e(y), and t keeps t R / e(y).

    For a BatchNorm behind a linear layer that has the epsilon rule: the two are one layer.
    """

    leaks = True

    def share(
        self, relevance: Tensor, run: Operation, *inputs: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        (a,) = inputs
        y, t = run(a), run(torch.zeros_like(a))
        q = relevance / self.stabilise(y)
        return [(y - t) * q], total(t * q)

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return self.share(relevance, run, *inputs)[0]


@register_rule(nn.LayerNorm, nn.GroupNorm)
class Normalisation(Rule):
    """y = w n + b with n = (a - mean(a)) / s, and s held constant (Ali et al., ICML 2022).

    The epsilon rule for what is linear then: q = R / e(y), R_a = a / s (w q - mean(w q)), with
    means over the values that are normalised together; b absorbs its share b q.
    """

    leaks = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        (a,), norm = inputs, self._norm
        # Values that are normalised together form one row.
        rows = (
            (len(a), norm.num_groups, -1)
            if isinstance(norm, nn.GroupNorm)
            else (*a.shape[: -len(norm.normalized_shape)], -1)
        )
        flat = a.reshape(rows)
        s = (torch.var(flat, -1, correction=0, keepdim=True) + norm.eps).sqrt()
        q = relevance / self.stabilise(norm(a))
        if norm.weight is not None:
            q = q * self._spread(norm.weight, a)
        q = q.reshape(rows)
        return [(flat / s * (q - q.mean(-1, keepdim=True))).reshape(a.shape)]

    def lost_to_constants(self, relevance: Tensor, parts: list[Tensor], *inputs: Tensor) -> Tensor:
        (a,), norm = inputs, self._norm
        if norm.bias is None:
            return relevance.new_zeros(len(relevance))
        kept = relevance / self.stabilise(norm(a)) * self._spread(norm.bias, a)
        return kept.flatten(1).sum(1)

    @property
    def _norm(self) -> nn.LayerNorm | nn.GroupNorm:
        assert isinstance(self.module, nn.LayerNorm | nn.GroupNorm)
        return self.module

    def _spread(self, parameter: Tensor, a: Tensor) -> Tensor:
        """A weight or bias in a shape that broadcasts over the input."""
        if isinstance(self.module, nn.GroupNorm):  # one number for each channel, (B, C, ...)
            return parameter.reshape(-1, *[1] * (a.ndim - 2))
        return parameter


@register_rule(torch.mul, torch.div)
class Gate(Pass):
    """y = x g with a gate or constant g: the feature map x receives all of R."""

    keeps_sign = True


@register_rule(
    nn.AdaptiveAvgPool2d, nn.AvgPool2d, F.adaptive_avg_pool2d, F.avg_pool2d, torch.mean, torch.sum,
)  # fmt: skip
class Mixture(Rule):
    """y = L a for a linear map L without parameters; R_a = a L^T(R / e(y))."""

    leaks = True
    keeps_sign = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        y, transpose = with_transpose(run, *inputs)
        shares = transpose(relevance / self.stabilise(y))
        return [a * share for a, share in zip(inputs, shares, strict=True)]


@register_rule(
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, F.interpolate, torch.conv2d,
)  # fmt: skip
class SignedMixture(Mixture):
    """`Mixture` with coefficients of any sign: interpolation, and fixed (anti-aliasing) filters."""

    keeps_sign = False


@register_rule(maybe_add_mask)
class SumWithConstants(SignedMixture):
    """y = a + c with constants such as position embeddings or a mask: R_a = a R / e(y)."""

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        (a,) = inputs
        return [a * (relevance / self.stabilise(run(a)))]

    def lost_to_constants(self, relevance: Tensor, parts: list[Tensor], *inputs: Tensor) -> Tensor:
        return total(relevance) - total(parts[0])


@register_rule(torch.sub)
class Difference(Mixture):
    """y = u - v, and any sum with a factor, by the rule of `Mixture`.

    Shares are signed and may exceed 1. A constant receives nothing.
    """

    multiple_inputs = True
    keeps_sign = False

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        return [relevance] if len(inputs) == 1 else super().relevance(relevance, run, *inputs)


@register_rule(torch.add)
class Sum(Difference):
    """y = u + v; R_u = u R / e(y), R_v = v R / e(y).

    Written for large maps: few passes over memory, and only two new tensors.
    """

    keeps_sign = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        if len(inputs) == 1:
            return [relevance]
        u, v = inputs
        y = u + v
        spare = torch.copysign(y.new_tensor(self.epsilon), y)
        q = torch.div(relevance, spare.add_(y), out=y)
        return [torch.mul(u, q, out=spare), q.mul_(v)]


def total(relevance: Tensor) -> Tensor:
    """Sum over all but the first axis, (B, ...) -> (B,)."""
    return relevance.flatten(1).sum(1)
