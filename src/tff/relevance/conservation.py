"""Conservation of relevance: what arrives at each operation, what leaves it, and what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tff.relevance.canonize import Step

#: Recorded per operation and image, as fractions of the relevance that the output started with.
COLUMNS = ("arrives", "leaves", "lost_to_constants", "lost_at_zero", "negative_share")


@dataclass(frozen=True)
class RelevanceSums:
    """Sums of relevance over places: positive part per channel (B, C), and all of it (B,)."""

    positive: Tensor
    net: Tensor

    @classmethod
    def of(cls, relevance: Tensor) -> RelevanceSums:
        """Sums of the relevance (B, C, ...) of a layer, see `Channels.by_image`."""
        places = tuple(range(2, relevance.ndim))
        return cls(relevance.clamp(min=0).sum(places), relevance.sum((1, *places)))

    def __add__(self, other: RelevanceSums) -> RelevanceSums:
        return RelevanceSums(self.positive + other.positive, self.net + other.net)

    @cached_property
    def absolute(self) -> Tensor:
        """Sum of |R| over the layer, (B,)."""
        return 2 * self.positive.sum(1) - self.net

    @property
    def share(self) -> Tensor:
        """Sum of [R]+ in a channel over sum of |R| in the layer, (B, C).

        All 0 in a layer that no relevance reaches (NaN in the released code).
        """
        absolute = self.absolute[:, None]
        return torch.where(absolute > 0, self.positive / absolute, 0)


class ConservationGraph:
    """The leaky operations of a network, and how relevance passes between them.

    Summing a large map takes time, so relevance that passes on without loss is summed once: what
    leaves an operation is what arrives at the leaky one before it, if that has no other reader; and
    what arrives at an operation with several readers is the sum of what they pass on.

    Args:
        steps: operations in order of execution.

    Attributes:
        leaky: positions of the operations that may lose relevance.
        readers: positions of the steps that read each step, by its position.
        before: for each leaky operation and input, the leaky operation at which all of the
            relevance of that input arrives, or None.
        after: for each leaky operation, the last step whose output has the same relevance.
    """

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.leaky = [i for i, step in enumerate(steps) if step.rule and step.rule.leaks]
        self.readers: dict[int, list[int]] = {}
        for i, step in enumerate(steps):
            for j in step.carriers:
                self.readers.setdefault(j, []).append(i)
        self.before = {i: [self._leaky_before(j) for j in steps[i].carriers] for i in self.leaky}
        self.after = {i: self._last_with_same_relevance(i) for i in self.leaky}

    def _leaks(self, i: int) -> bool:
        rule = self.steps[i].rule
        return rule is not None and rule.leaks

    def _leaky_before(self, j: int) -> int | None:
        while j >= 0 and len(self.readers[j]) == 1 and len(self.steps[j].carriers) == 1:
            if self._leaks(j):
                return j
            (j,) = self.steps[j].carriers
        return None

    def _last_with_same_relevance(self, i: int) -> int:
        while len(readers := self.readers.get(i, [])) == 1 and not self._leaks(readers[0]):
            if len(self.steps[readers[0]].carriers) != 1:
                break
            i = readers[0]
        return i


class ConservationRecord:
    """What one backward pass loses, operation by operation.

    Args:
        graph: of the network.
        images: B, their number. The first axis of a tensor may hold the windows of each image.
    """

    def __init__(self, graph: ConservationGraph, images: int) -> None:
        self._graph, self._images = graph, images
        self._arrives: dict[int, Tensor] = {}
        self._absolute: dict[int, Tensor] = {}
        self._constants: dict[int, Tensor] = {}
        # What each operation passes on: a sum, or the leaky operation at which it arrives.
        self._passed: dict[int, list[Tensor | int]] = {}
        self._received: dict[int, list[Tensor]] = {}

    def record(
        self,
        i: int,
        relevance: Tensor,
        sums: RelevanceSums | None,
        parts: list[Tensor],
        to_constants: Tensor | None,
    ) -> None:
        """Record a leaky operation.

        Args:
            i: its position.
            relevance: of its output.
            sums: of this relevance, if known already.
            parts: relevance of its inputs; empty if not computed.
            to_constants: (B, ...) relevance that constants keep, if there are any.
        """
        step, after = self._graph.steps[i], self._graph.after[i]
        received = self._received.get(after, [])
        if sums is not None:
            self._arrives[i] = sums.net
            self._absolute[i] = sums.absolute
        elif received and len(received) == len(self._graph.readers[after]):
            self._arrives[i] = torch.stack(received).sum(0)
        else:
            self._arrives[i] = self._sum_per_image(relevance)
        if relevance.ndim == 2:
            self._absolute[i] = self._sum_per_image(relevance.abs())
        for part, j, before in zip(parts, step.carriers, self._graph.before[i], strict=bool(parts)):
            passed = self._sum_per_image(part) if before is None else before
            self._passed.setdefault(i, []).append(passed)
            if isinstance(passed, Tensor):
                self._received.setdefault(j, []).append(passed)
        if to_constants is not None:
            self._constants[i] = self._sum_per_image(to_constants)

    def table(self, like: Tensor) -> Tensor:
        """(B, n_operations, 5), columns as in `COLUMNS`.

        Relevance that is lost but not kept by constants is lost at units whose contributions add
        up to zero, or to so little that epsilon counts. All 0 for an operation that no relevance
        reaches. NaN where not computed: what leaves an operation whose inputs were not requested,
        and the negative share without channels.

        Args:
            like: (B, ...) any tensor of the pass.
        """
        leaky = self._graph.leaky
        if not leaky:
            return like.new_zeros(len(like), 0, len(COLUMNS))
        zero = like.new_zeros(len(like))
        unknown = torch.full_like(zero, torch.nan)
        # All operations at once: a few small kernels for each would take longer than the sums.
        arrives = torch.stack([self._arrives.get(i, zero) for i in leaky], dim=1)
        leaves = torch.stack([self._leaves(i, zero, unknown) for i in leaky], dim=1)
        to_constants = torch.stack([self._constants.get(i, zero) for i in leaky], dim=1)
        absolute = torch.stack([self._absolute.get(i, unknown) for i in leaky], dim=1)
        negative = torch.where(absolute == 0, 0, (absolute - arrives) / (2 * absolute))
        at_zero = arrives - leaves - to_constants
        return torch.stack([arrives, leaves, to_constants, at_zero, negative], dim=2)

    def _leaves(self, i: int, zero: Tensor, unknown: Tensor) -> Tensor:
        passed = self._passed.get(i, [zero if i not in self._arrives else unknown])
        first, *others = (self._arrives[part] if isinstance(part, int) else part for part in passed)
        return sum(others, start=first)

    def _sum_per_image(self, relevance: Tensor) -> Tensor:
        """(B, ...), or (B * windows, ...), -> (B,)."""
        summed = relevance.sum(tuple(range(1, relevance.ndim))) if relevance.ndim > 1 else relevance
        return summed if len(summed) == self._images else summed.view(self._images, -1).sum(1)
