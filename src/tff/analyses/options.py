"""How a subject is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

from tff.analyses.criteria import CRITERIA, DUPLICATES
from tff.analyses.protocol import Protocol


@dataclass(frozen=True)
class RankingRule:
    """By what channels are ranked; see `analyses.criteria`."""

    by: str = "omega"
    duplicates: str = "mark"

    def __post_init__(self) -> None:
        for option, value, known in (
            ("by", self.by, CRITERIA),
            ("duplicates", self.duplicates, DUPLICATES),
        ):
            if value not in known:
                raise ValueError(
                    f"subject.ranking.{option}={value}: expected one of {', '.join(known)}"
                )


@dataclass(frozen=True)
class Options:
    """How a subject is looked at.

    Attributes:
        k: how many top channels are taken for the transferable forensic features: a number, a share
            (`0.43%`), `auto`, or None for the paper's share.
        k_below: with `auto`, the AP on the seen generator below which the top k must take it.
        confidence: FF-RS uses generated images with P(generated) of at least this, and real ones
            with at most one minus this.
        seed: of every random choice in the analyses.
        draws: resamples behind each interval.
        sample: of so many images of each generator and label the responses of all channels are
            kept.

    Raises:
        ValueError: a number has an impossible value.
    """

    k: int | str | None = None
    k_below: float = 0.75
    confidence: float = 0.9
    seed: int = 0
    draws: int = 1000
    sample: int = 250
    ranking: RankingRule = field(default_factory=RankingRule)
    scoring: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        for option, value, possible, expected in (
            ("k_below", self.k_below, 0 < self.k_below <= 1, "an AP above 0, at most 1"),
            ("confidence", self.confidence, 0 <= self.confidence <= 1, "a probability"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
            ("draws", self.draws, self.draws >= 1, "1 or more"),
            ("sample", self.sample, self.sample >= 1, "1 or more"),
        ):
            if not possible:
                raise ValueError(f"subject.{option}={value}: expected {expected}")
