"""What a relevance rule is, and which rule serves which operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from tff.detectors.trace import LEAVES

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
    several: ClassVar[bool] = False
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


def explains(*operations: object) -> Callable[[R], R]:
    """Make a rule serve these module classes, functions of `torch` and names of tensor methods."""

    def register(rule: R) -> R:
        RULES.update(dict.fromkeys(operations, rule))
        LEAVES.update(o for o in operations if isinstance(o, type))
        return rule

    return register


def transposed(run: Operation, *inputs: Tensor) -> tuple[Tensor, Transpose]:
    """The output y of a linear map L, and the function q -> L^T q, one tensor an input."""
    y, transpose = torch.func.vjp(run, *inputs)  # type: ignore[misc]  # three only with has_aux
    return y, transpose


def stabilised(z: Tensor) -> Tensor:
    """e(z): z, moved away from zero by EPSILON."""
    return z + torch.copysign(z.new_tensor(EPSILON), z)
