"""The rule of the layer that reads the image itself, when relevance of pixels is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tff.relevance.graph import Step
from tff.relevance.rule import Rule, stabilised
from tff.relevance.weighted import Weighted


class Box(Weighted):
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
        return self.back(relevance / stabilised(self.sum(products)), products)


def boxes(
    steps: list[Step], mean: Tensor | Sequence[float], std: Tensor | Sequence[float]
) -> dict[int, Rule]:
    """The z-beta rule for each convolution that reads the image itself, by its position.

    Args:
        steps: the operations in order of execution.
        mean: (3,) taken from pixels in [0, 1] ...
        std: (3,) ... by which they are divided then.
    """
    shift, scale = (torch.as_tensor(x, dtype=torch.float32).flatten().cpu() for x in (mean, std))
    # One range for all three colors and in single precision, as released.
    low, high = float(((0 - shift) / scale).min()), float(((1 - shift) / scale).max())
    return {
        i: Box(rule.operation, rule.module, rule.nonnegative, low=low, high=high)
        for i, step in enumerate(steps)
        if step.carriers == [-1] and isinstance(rule := step.rule, Weighted)
    }
