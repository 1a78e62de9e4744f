"""Rules that convolutions may have instead of the paper's (`relevance.rule`); notation as there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tff.relevance.rule import stabilised
from tff.relevance.weighted import Epsilon, Products, Weighted, ZPlus, quotient


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


#: The rules that convolutions can have, by their names in `relevance.rule`.
CONVOLUTIONS: dict[str, type[Weighted]] = {
    "zplus": ZPlus,
    "alphabeta": AlphaBeta,
    "epsilon": Epsilon,
    "gamma": Gamma,
    "wsquare": WSquare,
    "flat": Flat,
}
