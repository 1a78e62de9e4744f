"""The relevance ledger: what arrives at each operation, what leaves it, and what is lost there."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from tff.relevance.graph import Step
from tff.relevance.sums import Sums
from tff.relevance.weighted import Linear, Weighted

#: What is noted of each operation and image, in parts of the relevance laid on the output.
COLUMNS = ("arrives", "leaves", "lost_to_bias", "lost_at_zero", "negative_share")


class Ledger:
    """The accounts of a network: its operations at which relevance may be lost.

    Args:
        steps: the operations in order of execution.
    """

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.accounts = [i for i, step in enumerate(steps) if step.rule and step.rule.leaks]
        self._readers = Counter(j for step in steps for j in step.carriers)
        self._same = {i: [self._next(j) for j in steps[i].carriers] for i in self.accounts}

    def _next(self, j: int) -> int | None:
        """The account at which all arrives that is handed to a step, where there is just one."""
        while j >= 0 and self._readers[j] == 1 and len(self.steps[j].carriers) == 1:
            rule = self.steps[j].rule
            if rule is not None and rule.leaks:
                return j
            (j,) = self.steps[j].carriers
        return None


class Book:
    """The lines of one walk back."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._arrives: dict[int, Tensor] = {}
        self._absolute: dict[int, Tensor] = {}
        self._bias: dict[int, Tensor | None] = {}
        self._handed: dict[int, list[Tensor | int]] = {}

    def note(
        self, i: int, relevance: Tensor, sums: Sums | None, parts: list[Tensor], a: Tensor | None
    ) -> None:
        """Note what happens at a step.

        Args:
            i: position of the step.
            relevance: of its output.
            sums: of this relevance, where they are known already.
            parts: relevance of its inputs; empty where that was not asked for.
            a: the input of a layer with weights.
        """
        rule = self._ledger.steps[i].rule
        self._arrives[i] = _total(relevance) if sums is None else sums.net.sum(1)
        self._absolute[i] = _total(relevance.abs()) if sums is None else sums.absolute
        if parts:
            same = self._ledger._same[i]
            self._handed[i] = [
                _total(part) if k is None else k for part, k in zip(parts, same, strict=True)
            ]
        if a is not None and isinstance(rule, Weighted | Linear):
            self._bias[i] = rule.lost_to_bias(relevance, a)

    def lines(self, like: Tensor) -> Tensor:
        """(B, n_accounts, 5), see `COLUMNS`; an operation that no relevance reached has lost none.

        What is lost and no bias has kept was lost at units whose contributions add up to zero, or
        to so little that epsilon counts. What leaves is NaN where it was not computed.

        Args:
            like: (B, ...) any tensor of the walk.
        """
        zero, lines = like.new_zeros(len(like)), []
        for i in self._ledger.accounts:
            arrives, absolute = self._arrives.get(i, zero), self._absolute.get(i, zero)
            to_bias = self._bias.get(i)
            to_bias = zero if to_bias is None else to_bias
            leaves = zero
            for part in self._handed.get(i, [zero if i not in self._arrives else zero / 0]):
                leaves = leaves + (self._arrives[part] if isinstance(part, int) else part)
            negative = torch.where(absolute > 0, (absolute - arrives) / (2 * absolute), 0)
            line = [arrives, leaves, to_bias, arrives - leaves - to_bias, negative]
            lines.append(torch.stack(line, dim=1))
        return torch.stack(lines, dim=1) if lines else like.new_zeros(len(like), 0, len(COLUMNS))


def _total(relevance: Tensor) -> Tensor:
    """Sum of all relevance of each image, (B, ...) -> (B,)."""
    return relevance.sum(tuple(range(1, relevance.ndim)))
