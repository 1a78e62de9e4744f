"""Relevance of the channels of a layer, summed over places."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sums:
    """Sums over a map: of each channel's positive relevance (B, C), and of all relevance (B,)."""

    positive: Tensor
    net: Tensor

    @classmethod
    def of(cls, relevance: Tensor) -> Sums:
        """The sums of the relevance (B, C, H, W) of a layer."""
        return cls(relevance.clamp(min=0).sum((2, 3)), relevance.sum((1, 2, 3)))

    def plus(self, other: Sums) -> Sums:
        """Of a layer that is used at two places of the network."""
        return Sums(self.positive + other.positive, self.net + other.net)

    @cached_property
    def absolute(self) -> Tensor:
        """Sum of |R| over the layer, (B,)."""
        return 2 * self.positive.sum(1) - self.net

    @property
    def share(self) -> Tensor:
        """Sum of [R]+ in a channel over sum of |R| in the layer, (B, C).

        A layer that no relevance reaches has no shares: all 0 (the released code has NaN).
        """
        absolute = self.absolute[:, None]
        return torch.where(absolute > 0, self.positive / absolute, 0)
