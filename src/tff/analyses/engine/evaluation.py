"""Logits become measures: of each generator, of all, and with channels dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from tff.analyses.engine.subject import Subject
from tff.statistics.bootstrap import Estimate, draw_resamples, mean, shortfall, worst
from tff.statistics.detection import ThresholdRule, measures
from tff.types import Floats, Ints

#: What tables of interventions show, of all `statistics.detection.MEASURES`.
MAIN_MEASURES = ("ap", "real_accuracy", "fake_accuracy")


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
class Evaluator:
    """Judges scores on the images of one generator and the real ones that belong to it.

    Attributes:
        generator: its name.
        rows: (n,) of these images among the test images.
        logits: (N,) logits of the detector as it is, from which thresholds are taken.
    """

    subject: Subject
    generator: str
    rows: Ints
    logits: Floats

    @cached_property
    def labels(self) -> Ints:
        """(n,) of these images."""
        return self.subject.labels[self.rows]

    @cached_property
    def resamples(self) -> Ints:
        """(draws, n), the same for every score."""
        return draw_resamples(self.labels, self.subject.draws, self.subject.seed)

    @property
    def seen(self) -> bool:
        """Whether channels were found on this generator."""
        return self.generator in self.subject.seen

    def threshold(self, rule: ThresholdRule | None = None) -> float:
        """The threshold, by the rule of the protocol or another one."""
        chosen = self.subject.options.scoring.threshold if rule is None else rule
        return self.subject.threshold(chosen, self.labels, self.logits[self.rows])

    def measure(self, scores: Scores, rule: ThresholdRule | None = None) -> dict[str, Estimate]:
        """All `statistics.detection.MEASURES`."""
        p = scores.p[self.rows]
        called = p > self.threshold(rule)
        return measures(self.labels, scores.score[self.rows], called, p, self.resamples)

    def columns(self) -> dict[str, object]:
        """What a row of a table says of threshold and images."""
        return {
            "threshold": self.threshold(),
            "threshold_rule": self.subject.options.scoring.threshold,
            "scores": self.subject.options.scoring.scores,
            "images": len(self.rows),
        }


def evaluators(subject: Subject) -> Iterable[Evaluator]:
    """One for each generator, the seen one first."""
    logits = subject.evaluate().logits
    for name, at in subject.generators():
        yield Evaluator(subject, name, at, logits)


def summarize_generators(
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


GROUPS = {
    "seen": "the seen generator",
    "unseen": "generators never seen (mean)",
    "unseen_worst": "the worst of them",
}


RULES: tuple[ThresholdRule, ...] = ("half", "validation", "oracle")


def accuracies_by_threshold(evaluator: Evaluator, scores: Scores) -> list[dict[str, object]]:
    """A row a rule: the threshold, and accuracies with Wilson's 95 % intervals (1927).

    `validation` and `oracle` are taken from the detector with nothing dropped, as in the released
    code; `oracle` from the very images that are judged, hence optimistic.
    """
    rows: list[dict[str, object]] = []
    p = scores.p[evaluator.rows]
    for rule in RULES:
        cut = evaluator.threshold(rule)
        row: dict[str, object] = {"threshold_rule": rule, "threshold": cut}
        for name, label in (("real_accuracy", 0), ("fake_accuracy", 1)):
            mine = evaluator.labels == label
            right, total = int(((p > cut) == (label == 1))[mine].sum()), int(mine.sum())
            low = high = np.nan
            if total:
                low, high = binomtest(right, total).proportion_ci(method="wilson")
            value = right / total if total else np.nan
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return rows


ApByGenerator = dict[str, Estimate]  # of each generator


def compare_with_controls(
    subject: Subject,
    found: Mapping[str, ApByGenerator],
    single: Mapping[str, Sequence[ApByGenerator]],
) -> pd.DataFrame:
    """By how much AP is lower without the top k than without others, with intervals.

    Args:
        found: AP with each choice dropped.
        single: of random channels, AP with each draw of them dropped.
    """

    def with_means(aps: ApByGenerator) -> ApByGenerator:
        parts = summarize_generators(subject, aps)
        return aps | {GROUPS[where]: ap for where, ap in parts.items() if where != "unseen_worst"}

    top, low = with_means(found["top_k"]), with_means(found["low_k"])
    drawn = {control: [with_means(draw) for draw in draws] for control, draws in single.items()}
    by = {c: {g: shortfall(ap, [one[g] for one in of]) for g, ap in top.items()}
          for c, of in drawn.items()}  # fmt: skip
    by["low_k"] = {generator: low[generator] - ap for generator, ap in top.items()}
    return pd.DataFrame(
        {"generator": generator, "against": control, **difference.columns("ap_lower_by")}
        for control, differences in by.items()
        for generator, difference in differences.items()
    )


def describe_difference(low: float, high: float) -> str:
    """What the ends of the interval of a difference from random channels say of it."""
    if np.isnan([low, high]).any():
        return "of a single draw nobody knows its chance"
    if low > 0:
        return "more than chance"
    return "less, and not by chance" if high < 0 else "no more than chance can do"


def summarize_draws(alone: list[Estimate]) -> dict[str, float]:
    """How much AP differs between single draws of random channels."""
    aps = np.array([ap.value for ap in alone])
    known = len(aps) > 0
    return {
        "ap_draws_mean": float(aps.mean()) if known else np.nan,
        "ap_draws_sd": float(aps.std(ddof=1)) if len(aps) > 1 else np.nan,
        "ap_draws_min": float(aps.min()) if known else np.nan,
        "ap_draws_max": float(aps.max()) if known else np.nan,
    }


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
