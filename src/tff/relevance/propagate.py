"""The forward pass, and relevance propagated back through the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from tff.relevance.canonize import Step
from tff.relevance.conservation import ConservationGraph, ConservationRecord, RelevanceSums
from tff.relevance.conv_rules import Linear, Weighted
from tff.relevance.rules import Operation, Rule


class Activations(NamedTuple):
    """Of each step (-1: the input) its output, as long as it is needed, and the output's shape."""

    values: dict[int, Any]
    shapes: dict[int, Any]


@dataclass
class Propagated:
    """What was found on the way back.

    Attributes:
        sums: relevance of the channels of each layer that has channels, by its name.
        book: what arrived, left and was lost at each operation.
        pixels: relevance of the input, where it was asked for.
    """

    conservation: ConservationRecord
    sums: dict[str, RelevanceSums] = field(default_factory=dict)
    pixels: Tensor | None = None


class Propagator:
    """Walks through a network.

    Args:
        steps: the operations in order of execution.
        layers: names of the layers whose channels' relevance is summed.
        first: rules that layers which read the image itself have instead, by their positions.
    """

    def __init__(self, steps: list[Step], layers: set[str], first: Mapping[int, Rule]) -> None:
        self.steps, self.layers, self.first = steps, layers, first
        self.conservation = ConservationGraph(steps)
        self.last_use = {j: i for i, step in enumerate(steps) for j in step.inputs}
        self.kept = {
            j for s in steps if s.rule is not None and s.rule.keeps_inputs for j in s.inputs
        }

    def forward(self, images: Tensor, last: int) -> Activations:
        """Run the network up to a step; keep only what the way back needs."""
        values: dict[int, Any] = {-1: images}
        shapes: dict[int, Any] = {-1: images.shape}
        for i, step in enumerate(self.steps[: last + 1]):
            values[i] = step.run(*(values[j] for j in step.inputs))
            shapes[i] = getattr(values[i], "shape", None)
            for j in step.inputs:
                if self.last_use[j] == i and j not in self.kept:
                    del values[j]
        return Activations(values, shapes)

    def backward(
        self, activations: Activations, last: int, relevance: Tensor, pixels: bool = False
    ) -> Propagated:
        """Share out the relevance of the output of a step among all before it.

        Args:
            activations: of the forward walk; emptied on the way.
            last: the step.
            relevance: of its output.
            pixels: whether to go on to the input itself.
        """
        found, waiting = Propagated(ConservationRecord(self.conservation)), {last: relevance}
        values, shapes = activations
        for i in range(last, -1, -1):
            arrived, step = waiting.pop(i, None), self.steps[i]
            values.pop(i, None)
            if arrived is None or step.rule is None:
                continue
            sums = RelevanceSums.from_map(arrived) if step.name in self.layers else None
            if sums is not None:
                known = found.sums.get(step.name)
                found.sums[step.name] = sums if known is None else known + sums
            parts: list[Tensor] = []
            rule = self.first.get(i, step.rule) if pixels else step.rule
            if step.carriers != [-1] or pixels:
                inputs = [values[j] for j in step.carriers] if rule.keeps_inputs else []
                parts = rule.relevance(arrived, self._operation(step, values), *inputs)
            if step.rule.leaks:
                to_bias = None
                if parts and isinstance(rule, Weighted | Linear):
                    to_bias = rule.lost_to_bias(arrived, inputs[0])
                found.conservation.record(i, arrived, sums, parts, to_bias)
            for j, part in zip(step.carriers, parts, strict=bool(parts)):
                if shapes[j] is not None and part.shape != shapes[j]:
                    part = part.sum_to_size(shapes[j])  # a value that was spread over a map
                waiting[j] = waiting[j].add_(part) if j in waiting else part
        found.pixels = waiting.get(-1)
        return found

    @staticmethod
    def _operation(step: Step, values: dict[int, Any]) -> Operation:
        """The operation as a function of its carriers; what else it reads is as it was."""
        if step.carriers == step.inputs:
            return step.run

        def run(*carriers: Tensor) -> Tensor:
            known = dict(zip(step.carriers, carriers, strict=True))
            result: Tensor = step.run(*(known.get(j, values[j]) for j in step.inputs))
            return result

        return run
