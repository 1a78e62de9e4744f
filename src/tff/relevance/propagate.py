"""Forward pass through the steps of a network, and relevance propagated back through them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from tff.relevance.canonize import Step
from tff.relevance.conservation import ConservationGraph, ConservationRecord, RelevanceSums
from tff.relevance.rules import Operation, Rule
from tff.types import Channels


class Activations(NamedTuple):
    """Outputs of the steps (-1: the input) that the backward pass needs, and shapes of all."""

    values: dict[int, Any]
    shapes: dict[int, Any]


@dataclass
class Propagated:
    """Result of a backward pass.

    Attributes:
        conservation: what arrived, left and was lost at each operation.
        sums: relevance of the channels of each layer, by its name.
        pixels: relevance of the input, if requested.
    """

    conservation: ConservationRecord
    sums: dict[str, RelevanceSums] = field(default_factory=dict)
    pixels: Tensor | None = None

    def add(self, layer: str, sums: RelevanceSums) -> None:
        """Add what arrives at a layer, which may run several times."""
        earlier = self.sums.get(layer)
        self.sums[layer] = sums if earlier is None else earlier + sums


class Propagator:
    """Runs a network forward, and relevance backward.

    Args:
        steps: operations in order of execution.
        channels: whose relevance is summed.
        input_rules: rules that replace those of steps which read the image, by position, when
            pixel relevance is requested.
    """

    def __init__(
        self, steps: list[Step], channels: Channels, input_rules: Mapping[int, Rule]
    ) -> None:
        self.steps, self.channels, self.input_rules = steps, channels, input_rules
        self.conservation = ConservationGraph(steps)
        self._last_use = {j: i for i, step in enumerate(steps) for j in step.inputs}
        self._needed_backward = {
            j for s in steps if s.rule is not None and s.rule.keeps_inputs for j in s.inputs
        } | {i for i, s in enumerate(steps) if s.rule is not None and s.rule.keeps_output}

    def forward(self, images: Tensor, last: int) -> Activations:
        """Run the network up to a step, and keep what the backward pass needs."""
        values: dict[int, Any] = {-1: images}
        shapes: dict[int, Any] = {-1: images.shape}
        for i, step in enumerate(self.steps[: last + 1]):
            values[i] = step.run(*(values[j] for j in step.inputs))
            shapes[i] = getattr(values[i], "shape", None)
            for j in step.inputs:
                if self._last_use[j] == i and j not in self._needed_backward:
                    del values[j]
        return Activations(values, shapes)

    def backward(
        self, activations: Activations, last: int, relevance: Tensor, pixels: bool = False
    ) -> Propagated:
        """Distribute the relevance of the output of a step over all steps before it.

        Args:
            activations: of the forward pass; emptied on the way.
            last: position of the step.
            relevance: of its output.
            pixels: whether to continue to the input itself.
        """
        values, shapes = activations
        images, channels = shapes[-1][0], self.channels
        conservation = ConservationRecord(self.conservation, images)
        result, waiting = Propagated(conservation), {last: relevance}
        for i in range(last, -1, -1):
            arrived, step = waiting.pop(i, None), self.steps[i]
            output = values.pop(i, None)
            if arrived is None or step.rule is None:
                continue
            counts, kind = step.name in channels.widths, channels.kind(step.name)
            sums = None
            if counts and kind != "heads":
                sums = RelevanceSums.of(channels.by_image(step.name, arrived, images))
                result.add(step.name, sums)
            parts: list[Tensor] = []
            lost = None
            rule = self.input_rules.get(i, step.rule) if pixels else step.rule
            if step.carriers != [-1] or pixels:
                inputs = [values[j] for j in step.carriers] if rule.keeps_inputs else []
                inputs += [output] if rule.keeps_output else []
                parts, lost = rule.share(arrived, self._operation(step, values), *inputs)
            if counts and kind == "heads":
                by_image = channels.by_image(step.name, parts[0], images)
                result.add(step.name, RelevanceSums.of(by_image))
            if step.rule.leaks:
                result.conservation.record(i, arrived, sums, parts, lost)
            for j, part in zip(step.carriers, parts, strict=bool(parts)):
                if shapes[j] is not None and part.shape != shapes[j]:
                    part = part.sum_to_size(shapes[j])  # a value that was broadcast over a map
                waiting[j] = waiting[j].add_(part) if j in waiting else part
        result.pixels = waiting.get(-1)
        return result

    @staticmethod
    def _operation(step: Step, values: dict[int, Any]) -> Operation:
        """The operation as a function of its carriers, its other inputs being fixed."""
        if step.carriers == step.inputs:
            return step.run

        def run(*carriers: Tensor) -> Tensor:
            known = dict(zip(step.carriers, carriers, strict=True))
            result: Tensor = step.run(*(known.get(j, values[j]) for j in step.inputs))
            return result

        return run
