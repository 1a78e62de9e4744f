"""A comparison: one question about finished runs, answered from their reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from tff.analyses.engine.analysis import Analysis
from tff.types import Result


class Comparison(ABC):
    """Question about finished runs; needs neither a detector nor images."""

    @abstractmethod
    def __call__(self) -> Result:
        """Read the reports and answer the question."""


def select_comparisons(
    chosen: Mapping[str, Analysis | Comparison], ckpt: str | None
) -> dict[str, Comparison]:
    """The comparisons among the chosen analyses; empty if none was chosen.

    Raises:
        ValueError: analyses of a detector were chosen as well, or a checkpoint was named.
    """
    comparisons = {name: one for name, one in chosen.items() if isinstance(one, Comparison)}
    others = [name for name in chosen if name not in comparisons]
    if comparisons and others:
        raise ValueError(
            f"analysis=[{','.join(chosen)}]: {', '.join(comparisons)} read reports of finished "
            f"runs, while {', '.join(others)} need a detector; run them in two commands"
        )
    if comparisons and ckpt is not None:
        raise ValueError(
            f"ckpt={ckpt}: {', '.join(comparisons)} read reports of finished runs and no "
            "checkpoint; leave ckpt out"
        )
    return comparisons
