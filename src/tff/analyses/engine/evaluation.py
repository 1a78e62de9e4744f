"""Measures of a detector: per generator, over generators, and against random channels."""

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
    def resamples(self) -> Ints:
        """Bootstrap resamples (draws, n), the same for all scores."""
        return draw_resamples(self.labels, self.subject.draws, self.subject.seed)

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
        return measures(self.labels, scores.score[self.rows], called, p, self.resamples)

    def columns(self) -> dict[str, object]:
        """Columns of a results table that describe threshold and images."""
        return {
            "threshold": self.threshold(),
            "threshold_rule": self.subject.options.scoring.threshold,
            "scores": self.subject.options.scoring.scores,
            "images": len(self.rows),
        }


def evaluators(subject: Subject) -> Iterable[Evaluator]:
    """One evaluator per generator, seen ones first."""
    logits = subject.evaluate().logits
    for generator, rows in subject.generators():
        yield Evaluator(subject, generator, rows, logits)


#: Groups of generators, as tables and reports call them.
GROUPS = {
    "seen": "the seen generator",
    "unseen": "generators never seen (mean)",
    "unseen_worst": "the worst of them",
}


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
    parts = {
        "seen": [e for name, e in estimates.items() if name in subject.seen],
        "unseen": [e for name, e in estimates.items() if name not in subject.seen],
    }
    summary = {part: mean(group) for part, group in parts.items() if group}
    if parts["unseen"]:
        summary["unseen_worst"] = worst(parts["unseen"], smallest)
    return summary


RULES: tuple[ThresholdRule, ...] = ("half", "validation", "oracle")


def accuracies_by_threshold(evaluator: Evaluator, scores: Scores) -> list[dict[str, object]]:
    """Accuracies under each threshold rule, with 95 % intervals (Wilson, 1927); a row per rule.

    As in the released code, `validation` and `oracle` thresholds come from the detector with
    nothing dropped. `oracle` uses the evaluated images themselves and is optimistic.
    """
    rows: list[dict[str, object]] = []
    p = scores.p[evaluator.rows]
    for rule in RULES:
        threshold = evaluator.threshold(rule)
        row: dict[str, object] = {"threshold_rule": rule, "threshold": threshold}
        for name, label in (("real_accuracy", 0), ("fake_accuracy", 1)):
            mask = evaluator.labels == label
            right, total = int(((p > threshold) == (label == 1))[mask].sum()), int(mask.sum())
            low = high = np.nan
            if total:
                low, high = binomtest(right, total).proportion_ci(method="wilson")
            value = right / total if total else np.nan
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return rows


ApByGenerator = dict[str, Estimate]


def compare_with_controls(
    subject: Subject, ap: Mapping[str, ApByGenerator], draws: Mapping[str, Sequence[ApByGenerator]]
) -> pd.DataFrame:
    """How much lower AP is without the top k channels than without other channels.

    Args:
        ap: AP with each choice of channels dropped.
        draws: for each kind of random channels, AP with each draw of them dropped.

    Returns:
        A row per generator or group and control, with 95 % intervals.
    """

    def with_means(aps: ApByGenerator) -> ApByGenerator:
        parts = summarize_generators(subject, aps)
        return aps | {GROUPS[part]: ap for part, ap in parts.items() if part != "unseen_worst"}

    top, low = with_means(ap["top_k"]), with_means(ap["low_k"])
    controls = {control: [with_means(draw) for draw in of] for control, of in draws.items()}
    differences = {
        control: {g: shortfall(ap, [draw[g] for draw in of]) for g, ap in top.items()}
        for control, of in controls.items()
    }
    differences["low_k"] = {generator: low[generator] - ap for generator, ap in top.items()}
    return pd.DataFrame(
        {"generator": generator, "against": control, **difference.columns("ap_lower_by")}
        for control, by_generator in differences.items()
        for generator, difference in by_generator.items()
    )


def describe_difference(low: float, high: float) -> str:
    """Verdict on a difference from random channels, from the ends of its 95 % interval."""
    if np.isnan([low, high]).any():
        return "significance unknown, since there is a single random draw"
    if low > 0:
        return "significantly more than random channels"
    if high < 0:
        return "significantly less than random channels"
    return "not significantly more than random channels"


def summarize_draws(draws: list[Estimate]) -> dict[str, float]:
    """Mean, standard deviation and range of AP over single draws of random channels."""
    aps = np.array([ap.value for ap in draws])
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
