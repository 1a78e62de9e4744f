"""Measures of a detector: per generator, and summarized over generators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tff.analyses.engine.subject import Subject
from tff.data.groups import count_units
from tff.statistics.bootstrap import Estimate, draw_resamples, mean, worst
from tff.statistics.detection import ThresholdRule, accuracies, measures
from tff.types import Floats, Ints

#: Those of `statistics.detection.MEASURES` that tables of interventions show.
MAIN_MEASURES = ("ap", "real_accuracy", "fake_accuracy")


@dataclass(frozen=True)
class Scores:
    """Scores of the test images under the protocol of a subject.

    Attributes:
        score: (N,) from which average precision is computed.
        p: (N,) probability of "generated".
    """

    score: Floats
    p: Floats

    @classmethod
    def of(cls, subject: Subject, logits: Floats) -> Scores:
        """Scores from logits (N,)."""
        scoring = subject.options.scoring
        return cls(scoring.score(logits), scoring.probability(logits))


@dataclass(frozen=True)
class Evaluator:
    """Evaluates scores on the images of one generator and the real images that belong to it.

    Attributes:
        generator: its name.
        rows: (n,) of these images among the test images.
        logits: (N,) of the detector on unchanged images with all channels; thresholds come from
            these.
    """

    subject: Subject
    generator: str
    rows: Ints
    logits: Floats

    @cached_property
    def labels(self) -> Ints:
        """Labels of these images, (n,)."""
        return self.subject.labels[self.rows]

    @cached_property
    def groups(self) -> Ints | None:
        """Group (n,) of each image if resamples draw groups; see `Subject.resampled_groups`."""
        return self.subject.resampled_groups(self.rows)

    @cached_property
    def resamples(self) -> Ints:
        """Resamples of images or groups, the same for all scores; see `draw_resamples`."""
        return draw_resamples(self.labels, self.subject.draws, self.subject.seed, self.groups)

    @property
    def seen(self) -> bool:
        """Whether channels were ranked on this generator."""
        return self.generator in self.subject.seen

    def threshold(self, rule: ThresholdRule | None = None) -> float:
        """Threshold under the given rule; None: that of the protocol."""
        chosen = self.subject.options.scoring.threshold if rule is None else rule
        return self.subject.threshold(chosen, self.labels, self.logits[self.rows])

    def measure(self, scores: Scores, rule: ThresholdRule | None = None) -> dict[str, Estimate]:
        """All `statistics.detection.MEASURES`, with intervals."""
        p = scores.p[self.rows]
        called = p > self.threshold(rule)
        score = scores.score[self.rows]
        return measures(self.labels, score, called, p, self.resamples, self.groups)

    def accuracies(self, scores: Scores, rule: ThresholdRule | None = None) -> dict[str, Estimate]:
        """`real_accuracy`, `fake_accuracy`, `balanced_accuracy` and `accuracy`, with intervals."""
        called = scores.p[self.rows] > self.threshold(rule)
        return accuracies(self.labels, called, self.resamples, self.groups)

    def columns(self) -> dict[str, object]:
        """Columns of a results table that describe threshold, images and resamples."""
        known = self.subject.images.test.groups
        return {
            "threshold": self.threshold(),
            "threshold_rule": self.subject.options.scoring.threshold,
            "scores": self.subject.options.scoring.scores,
            "images": len(self.rows),
            "groups": None if known is None else len(np.unique(known[self.rows])),
            "resampled": "image" if self.groups is None else self.subject.images.test.unit,
        }


def evaluators(subject: Subject) -> Iterable[Evaluator]:
    """One evaluator per generator, seen ones first."""
    logits = subject.evaluate().logits
    for generator, rows in subject.generators():
        yield Evaluator(subject, generator, rows, logits)


def describe_resamples(subject: Subject) -> str:
    """What the intervals of a result are over, in a sentence for its captions."""
    test = subject.images.test
    if test.groups is None:
        return (
            "Intervals are over images; from how many photographs or other sources these come is "
            "not known (data.group)."
        )
    rows = dict(subject.generators())
    few = [name for name in rows if subject.resampled_groups(rows[name]) is None]
    grouped = [rows[name] for name in rows if name not in few]
    if not grouped:
        found = count_units(len(np.unique(test.groups)), test.unit)
        return f"Intervals are over images; these come from {found}, which is too few to resample."
    number = len(np.unique(test.groups[np.concatenate(grouped)]))
    text = f"Intervals are over {count_units(number, test.unit)}, each with all of its images"
    return (
        f"{text}; for {', '.join(few)}, of fewer {test.unit}s, over images." if few else f"{text}."
    )


#: Groups of generators, as tables and reports call them.
GROUPS = {
    "seen": "the seen generator",
    "unseen": "generators never seen (mean)",
    "unseen_worst": "the worst of them",
}


def group_labels(subject: Subject) -> dict[str, str]:
    """`GROUPS`, with the number of seen generators where there are several."""
    n_seen = sum(generator in subject.seen for generator, _ in subject.generators())
    return GROUPS | ({"seen": f"the {n_seen} seen generators (mean)"} if n_seen > 1 else {})


def split_generators(subject: Subject, names: Iterable[str]) -> dict[str, list[str]]:
    """Generators that are `seen` and `unseen`, in their order; groups without any are absent."""
    parts: dict[str, list[str]] = {"seen": [], "unseen": []}
    for name in names:
        parts["seen" if name in subject.seen else "unseen"].append(name)
    return {part: found for part, found in parts.items() if found}


def summarize_generators(
    subject: Subject, estimates: Mapping[str, Estimate], smallest: bool = True
) -> dict[str, Estimate]:
    """Mean over seen generators, mean over unseen ones, and the worst of these.

    Args:
        estimates: by generator.
        smallest: whether smaller is worse.

    Returns:
        By the keys of `GROUPS`; groups without generators are absent.
    """
    parts = split_generators(subject, estimates)
    summary = {part: mean([estimates[n] for n in names]) for part, names in parts.items()}
    if "unseen" in parts:
        unseen = [estimates[name] for name in parts["unseen"]]
        summary["unseen_worst"] = worst(unseen, smallest)
    return summary


def describe_drop(drop: Estimate) -> str:
    """Verb for a drop of AP with its 95 % interval: it falls or rises, maybe not significantly."""
    verb, sign = ("falls", 1) if drop.value >= 0 else ("rises", -1)
    low, high = sorted(sign * end for end in drop.interval)
    remark = "" if low > 0 else ", not significantly"
    return f"{verb} by {abs(drop.value):.3f} ({low:.3f} to {high:.3f}){remark}"


def estimate_columns(
    estimates: Mapping[str, Estimate], names: Iterable[str], suffix: str = ""
) -> dict[str, float]:
    """Columns `ap`, `ap_low`, `ap_high`, ... of a table; with suffix `_drop`, `ap_drop`, ..."""
    return {c: v for name in names for c, v in estimates[name].columns(name + suffix).items()}


def oracle_warning(subject: Subject) -> list[str]:
    """A warning where thresholds are chosen on the test images, else none."""
    if subject.options.scoring.threshold != "oracle":
        return []
    return ["Accuracies use a threshold chosen on the test images themselves: optimistic."]
