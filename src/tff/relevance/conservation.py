"""Conservation of relevance: what each layer receives, passes on and loses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tff.relevance.canonize import Step


@dataclass(frozen=True)
class RelevanceSums:
    """Sums over a map: of each channel's positive relevance (B, C), and of all relevance (B,)."""

    positive: Tensor
    net: Tensor

    @classmethod
    def from_map(cls, relevance: Tensor) -> RelevanceSums:
        """The sums of the relevance (B, C, H, W) of a layer."""
        return cls(relevance.clamp(min=0).sum((2, 3)), relevance.sum((1, 2, 3)))

    def __add__(self, other: RelevanceSums) -> RelevanceSums:
        """Of a layer that is used at two places of the network."""
        return RelevanceSums(self.positive + other.positive, self.net + other.net)

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


#: What is noted of each operation and image, in parts of the relevance laid on the output.
COLUMNS = ("arrives", "leaves", "lost_to_bias", "lost_at_zero", "negative_share")


class ConservationGraph:
    """The accounts of a network: its operations at which relevance may be lost.

    Adding up a large map costs time, so what is handed over without loss is added up once: what
    leaves an operation is what arrives at the one before it, where nobody else reads that one; and
    what arrives at an operation with several readers is the sum of what they handed to it.

    Args:
        steps: the operations in order of execution.
    """

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.leaky = [i for i, step in enumerate(steps) if step.rule and step.rule.leaks]
        self.readers: dict[int, list[int]] = {}
        for i, step in enumerate(steps):
            for j in step.carriers:
                self.readers.setdefault(j, []).append(i)
        self.before = {i: [self._next_leaky(j) for j in steps[i].carriers] for i in self.leaky}
        self.behind = {i: self._last_of_same(i) for i in self.leaky}

    def _leaks(self, i: int) -> bool:
        rule = self.steps[i].rule
        return rule is not None and rule.leaks

    def _next_leaky(self, j: int) -> int | None:
        """The account at which all arrives that is handed to a step, where there is just one."""
        while j >= 0 and len(self.readers[j]) == 1 and len(self.steps[j].carriers) == 1:
            if self._leaks(j):
                return j
            (j,) = self.steps[j].carriers
        return None

    def _last_of_same(self, i: int) -> int:
        """The step whose output has the relevance of this one's, unchanged on its way."""
        while len(after := self.readers.get(i, [])) == 1 and not self._leaks(after[0]):
            if len(self.steps[after[0]].carriers) != 1:
                break
            i = after[0]
        return i


class ConservationRecord:
    """The lines of one walk back."""

    def __init__(self, graph: ConservationGraph) -> None:
        self._graph = graph
        self._arrives: dict[int, Tensor] = {}
        self._absolute: dict[int, Tensor] = {}
        self._bias: dict[int, Tensor] = {}
        self._handed: dict[int, list[Tensor | int]] = {}  # a number: what arrives there
        self._given: dict[int, list[Tensor]] = {}

    def record(
        self,
        i: int,
        relevance: Tensor,
        sums: RelevanceSums | None,
        parts: list[Tensor],
        to_bias: Tensor | None,
    ) -> None:
        """Note what happens at a step.

        Args:
            i: position of the step.
            relevance: of its output.
            sums: of this relevance, where they are known already.
            parts: relevance of its inputs; empty where that was not asked for.
            to_bias: (B,) what a bias keeps, where there is one.
        """
        step, behind = self._graph.steps[i], self._graph.behind[i]
        given = self._given.get(behind, [])
        if sums is not None:
            self._arrives[i] = sums.net
            self._absolute[i] = sums.absolute
        elif given and len(given) == len(self._graph.readers[behind]):
            self._arrives[i] = torch.stack(given).sum(0)
        else:
            self._arrives[i] = _total(relevance)
        if relevance.ndim == 2:
            self._absolute[i] = _total(relevance.abs())
        for part, j, before in zip(parts, step.carriers, self._graph.before[i], strict=bool(parts)):
            handed = _total(part) if before is None else before
            self._handed.setdefault(i, []).append(handed)
            if isinstance(handed, Tensor):
                self._given.setdefault(j, []).append(handed)
        if to_bias is not None:
            self._bias[i] = to_bias

    def table(self, like: Tensor) -> Tensor:
        """(B, n_leaky, 5), see `COLUMNS`; an operation that no relevance reached has lost none.

        What is lost and no bias has kept was lost at units whose contributions add up to zero, or
        to so little that epsilon counts. NaN is what was not computed: what leaves an operation
        whose inputs were not asked for, and the negative share where there are no channels.

        Args:
            like: (B, ...) any tensor of the walk.
        """
        leaky = self._graph.leaky
        if not leaky:
            return like.new_zeros(len(like), 0, len(COLUMNS))
        zero = like.new_zeros(len(like))
        unknown = torch.full_like(zero, torch.nan)
        # All accounts at once: one small operation for each would cost more than the adding up.
        arrives, leaves, to_bias, absolute = (
            torch.stack(column, dim=1)
            for column in (
                [self._arrives.get(i, zero) for i in leaky],
                [self._leaves(i, zero, unknown) for i in leaky],
                [self._bias.get(i, zero) for i in leaky],
                [self._absolute.get(i, unknown) for i in leaky],
            )
        )
        negative = torch.where(absolute == 0, 0, (absolute - arrives) / (2 * absolute))
        at_zero = arrives - leaves - to_bias
        return torch.stack([arrives, leaves, to_bias, at_zero, negative], dim=2)

    def _leaves(self, i: int, zero: Tensor, unknown: Tensor) -> Tensor:
        """What an operation has handed on."""
        handed = self._handed.get(i, [zero if i not in self._arrives else unknown])
        first, *others = (self._arrives[part] if isinstance(part, int) else part for part in handed)
        return sum(others, start=first)


def _total(relevance: Tensor) -> Tensor:
    """Sum of all relevance of each image, (B, ...) -> (B,)."""
    return relevance.sum(tuple(range(1, relevance.ndim)))
