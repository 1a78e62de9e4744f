"""What a relevance rule is, and which rule serves which operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

# The released code keeps its epsilons in single precision, also in float64 runs.
EPSILON = torch.tensor(1e-6).item()

Operation = Callable[..., Tensor]
Shares = tuple[Tensor | None, ...]


class Rule:
    """An operation together with its way back.

    Args:
        run: the operation; called with its tensor inputs only.
        module: the module that holds the parameters, where there is one.
        nonnegative: for each input, whether it is known never to be negative.
    """

    keeps_inputs: ClassVar[bool] = True  # does the way back need the inputs?

    def __init__(self, run: Operation, module: nn.Module | None, nonnegative: list[bool]) -> None:
        self.run = run
        self.nonnegative = nonnegative

    def forward(self, *inputs: Tensor) -> Tensor:
        """The plain operation."""
        return self.run(*inputs)

    def relevance(self, relevance: Tensor, *inputs: Tensor) -> Shares:
        """Relevance of the output -> relevance of each input; None where an input gets nothing."""
        raise NotImplementedError

    def output_nonnegative(self) -> bool:
        """Whether the output is known never to be negative."""
        return all(self.nonnegative)


RULES: dict[object, type[Rule]] = {}
R = TypeVar("R", bound=type[Rule])


def explains(*operations: object) -> Callable[[R], R]:
    """Make a rule serve these module classes, functions and method names."""

    def register(rule: R) -> R:
        RULES.update(dict.fromkeys(operations, rule))
        return rule

    return register


def stabilised(z: Tensor) -> Tensor:
    """e(z): z, moved away from zero by EPSILON."""
    return z + torch.copysign(z.new_tensor(EPSILON), z)
