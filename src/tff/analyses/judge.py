"""Logits of the test images -> measures of detection, resampled alike for all that is compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from tff.analyses.records import Floats, Rows
from tff.analyses.subject import Subject
from tff.statistics.bootstrap import Estimate, mean, resamples, worst
from tff.statistics.detection import ThresholdRule, measures

Measures = Mapping[str, Estimate]


@dataclass(frozen=True)
class Scores:
    """What a detector says of each test image.

    Attributes:
        score: (N,) what average precision is taken of.
        p: (N,) probability of "generated".
    """

    score: Floats
    p: Floats

    @classmethod
    def of(cls, subject: Subject, logits: Floats) -> Scores:
        """Of logits, by the protocol of the subject."""
        scoring = subject.options.scoring
        return cls(scoring.score(logits), scoring.probability(logits))


@dataclass(frozen=True)
class Judge:
    """Judges scores on the images of one generator and the real ones that belong to it.

    Attributes:
        name: of the generator.
        at: rows of its images.
        undisturbed: (N,) logits of the detector as it is, from which thresholds are taken.
    """

    subject: Subject
    name: str
    at: Rows
    undisturbed: Floats

    @cached_property
    def labels(self) -> Rows:
        """(n,) of these images."""
        return self.subject.labels[self.at]

    @cached_property
    def resamples(self) -> Rows:
        """(draws, n), the same for every score."""
        return resamples(self.labels, self.subject.draws, self.subject.seed)

    @property
    def seen(self) -> bool:
        """Whether channels were found on this generator."""
        return self.name in self.subject.seen

    def cut(self, rule: ThresholdRule | None = None) -> float:
        """The threshold, by the rule of the protocol or another one."""
        chosen = self.subject.options.scoring.threshold if rule is None else rule
        return self.subject.cut(chosen, self.labels, self.undisturbed[self.at])

    def __call__(self, scores: Scores, rule: ThresholdRule | None = None) -> dict[str, Estimate]:
        """All `statistics.detection.MEASURES`."""
        p = scores.p[self.at]
        called = p > self.cut(rule)
        return measures(self.labels, scores.score[self.at], called, p, self.resamples)

    def columns(self) -> dict[str, object]:
        """What a row of a table says of threshold and images."""
        return {
            "threshold": self.cut(),
            "threshold_rule": self.subject.options.scoring.threshold,
            "scores": self.subject.options.scoring.scores,
            "images": len(self.at),
        }


def judges(subject: Subject) -> Iterable[Judge]:
    """One for each generator, the seen one first."""
    logits = subject.evaluate().logits
    for name, at in subject.generators():
        yield Judge(subject, name, at, logits)


def over_generators(
    subject: Subject, estimates: Mapping[str, Estimate], smallest: bool = True
) -> dict[str, Estimate]:
    """A number on the seen generators, and mean and worst over those never seen.

    Args:
        estimates: of each generator.
        smallest: whether less is worse.
    """
    parts = {
        "seen": [e for name, e in estimates.items() if name in subject.seen],
        "unseen": [e for name, e in estimates.items() if name not in subject.seen],
    }
    found = {part: mean(group) for part, group in parts.items() if group}
    if parts["unseen"]:
        found["unseen_worst"] = worst(parts["unseen"], smallest)
    return found


WHERE = {
    "seen": "the seen generator",
    "unseen": "generators never seen (mean)",
    "unseen_worst": "the worst of them",
}
