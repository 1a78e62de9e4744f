"""The rules, as formulas over contributions c (B, N_in, N_out) of each input to each output."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# The released code keeps these in single precision.
EPSILON = torch.tensor(1e-6).item()
LOW = ((0 - torch.tensor(0.485)) / torch.tensor(0.229)).item()
HIGH = ((1 - torch.tensor(0.406)) / torch.tensor(0.225)).item()


class Shared(NamedTuple):
    """How the relevance of an operation's output was shared out.

    Attributes:
        inputs: (B, N_in) what each input gets.
        to_bias: (B,) what the bias keeps.
        at_zero: (B,) what is lost, as contributions add up to (nearly) zero.
        doubt: by how much contributions to a unit cancel at most; rounding grows by it.
    """

    inputs: Tensor
    to_bias: Tensor
    at_zero: Tensor
    doubt: float = 0.0


def away_from_zero(z: Tensor) -> Tensor:
    return torch.where(z < 0, z - EPSILON, z + EPSILON)


def positive(t: Tensor) -> Tensor:
    return torch.where(t > 0, t, 0)


def negative(t: Tensor) -> Tensor:
    return torch.where(t < 0, t, 0)


def unchanged(R: Tensor) -> Shared:
    return Shared(R, torch.zeros(len(R)), torch.zeros(len(R)))


def proportional(R: Tensor, c: Tensor) -> Shared:
    """R_i = sum_j c_ij / z_j R_j; what belongs to z_j = 0 is lost."""
    z = c.sum(1)
    q = torch.where(z == 0, 0, R / torch.where(z == 0, 1, z))
    return Shared((c * q[:, None]).sum(2), torch.zeros(len(R)), (R * (z == 0)).sum(1))


def stabilised(R: Tensor, c: Tensor, bias: Tensor | float = 0.0) -> Shared:
    """R_i = sum_j c_ij / e(z_j) R_j, with a bias that is part of z and keeps its part of R."""
    bias = torch.as_tensor(bias).expand(len(c), c.shape[2])
    z = c.sum(1) + bias
    q = R / away_from_zero(z)
    size = c.abs().sum(1) + bias.abs()
    doubt = torch.where((size > 0) & (R != 0), size / z.abs().clamp(min=1e-300), 0)
    to_bias, at_zero = (bias * q).sum(1), ((away_from_zero(z) - z) * q).sum(1)
    return Shared((c * q[:, None]).sum(2), to_bias, at_zero, doubt.max().item())


def box(R: Tensor, a: Tensor, W: Tensor) -> Shared:
    """z-beta; W (N_in, N_out), here and below."""
    return stabilised(R, a[:, :, None] * W - LOW * positive(W) - HIGH * negative(W))


def zplus(R: Tensor, a: Tensor, W: Tensor, seen: Tensor, bias: Tensor) -> Shared:
    return proportional(R, positive(a[:, :, None] * W))


def alphabeta(
    R: Tensor, a: Tensor, W: Tensor, seen: Tensor, bias: Tensor, alpha: float = 2.0
) -> Shared:
    c = a[:, :, None] * W
    pro, contra = proportional(R, positive(c)), proportional(R, negative(c))
    return Shared(*(alpha * x - (alpha - 1) * y for x, y in zip(pro, contra, strict=True)))


def epsilon(R: Tensor, a: Tensor, W: Tensor, seen: Tensor, bias: Tensor) -> Shared:
    return stabilised(R, a[:, :, None] * W, bias)


def gamma(
    R: Tensor, a: Tensor, W: Tensor, seen: Tensor, bias: Tensor, gamma: float = 0.25
) -> Shared:
    c = a[:, :, None] * W
    doubt = stabilised(R, c, bias).doubt  # of the sign of the output
    up = c.sum(1) + bias >= 0  # (B, N_out); what speaks for this sign counts more
    bias = bias + gamma * torch.where(up, positive(bias), negative(bias))
    c = c + gamma * torch.where(up[:, None], positive(c), negative(c))
    return stabilised(R, c, bias)._replace(doubt=doubt)


def wsquare(R: Tensor, a: Tensor, W: Tensor, seen: Tensor, bias: Tensor) -> Shared:
    return proportional(R, (W**2).expand(len(a), *W.shape))


def flat(R: Tensor, a: Tensor, W: Tensor, seen: Tensor, bias: Tensor) -> Shared:
    """seen (N_in, N_out): 1 where an output sees an input, whatever its weight."""
    return proportional(R, seen.expand(len(a), *seen.shape))


#: The rules that convolutions can have.
CONVOLUTIONS: dict[str, Callable[..., Shared]] = {
    "zplus": zplus,
    "alphabeta": alphabeta,
    "epsilon": epsilon,
    "gamma": gamma,
    "wsquare": wsquare,
    "flat": flat,
}
