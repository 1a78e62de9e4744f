"""Detection: average precision, accuracies, true positive rates and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import (
    GROUPS,
    Scores,
    estimate_columns,
    evaluators,
    oracle_warning,
    summarize_generators,
)
from tff.analyses.engine.subject import Subject
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, mean, worst
from tff.types import Result

ABOUT = """
Average precision (AP) and the area under the ROC curve (AUC) need no threshold; accuracies do.
"Caught at 1 % false alarms" is the share of generated images found at the threshold that calls at
most 1 % of the real images generated. Expected calibration error (ECE, 15 bins) and Brier score
measure whether a probability of 0.9 is right in 90 % of the cases; 0 is best.

The mean over generators hides the one on which the detector fails, so the table also has the worst
one. Whiskers are 95 % bootstrap intervals over images, not over trainings.
"""
#: Rows of the table after those of the generators.
SUMMARY_LABELS = GROUPS | {"all": "all generators (mean)", "all_worst": "the worst of all"}
#: Measures in the figure.
SHOWN = {
    "ap": "average precision",
    "tpr_at_5": "caught at 5 % false alarms",
    "tpr_at_1": "caught at 1 % false alarms",
}
_LOWER_IS_BETTER = ("ece", "brier")


@dataclass(frozen=True)
class Detection(Analysis):
    """All measures of detection for each generator, their mean, and the worst."""

    sanity_checks: ClassVar = "files"

    def answer(self, subject: Subject) -> Result:
        """Table `detection`: one row per generator, then means and worst."""
        scores = Scores.of(subject, subject.evaluate().logits)
        rows: list[dict[str, object]] = []
        measured: dict[str, dict[str, Estimate]] = {}  # measure -> generator -> estimate
        for evaluator in evaluators(subject):
            measures = evaluator.measure(scores)
            for name, estimate in measures.items():
                measured.setdefault(name, {})[evaluator.generator] = estimate
            first = {"generator": evaluator.generator, "seen": evaluator.seen}
            rows.append(first | estimate_columns(measures, measures) | evaluator.columns())
        n_generators = len(rows)
        overall = {name: _summarize(subject, name, found) for name, found in measured.items()}
        for where in overall["ap"]:
            first = {"generator": SUMMARY_LABELS[where], "seen": where == "seen"}
            estimates = {name: found[where] for name, found in overall.items()}
            rows.append(first | estimate_columns(estimates, estimates))
        table = pd.DataFrame(rows)
        result = Result("How well the detector does", ABOUT)
        result.tables = {"detection": table}
        for where, ap in overall["ap"].items():
            caught = overall["tpr_at_1"][where]
            result.findings.append(
                f"On {SUMMARY_LABELS[where]}: AP {ap.value:.3f} ({ap.low:.3f} to {ap.high:.3f}); "
                f"at 1 % false alarms it catches {100 * caught.value:.0f} % "
                f"({100 * caught.low:.0f} to {100 * caught.high:.0f})."
            )
            result.scalars |= {f"{where}_{name}": overall[name][where].value for name in overall}
        result.figures = {
            "detection": grouped.grouped_points(
                _points(table.head(n_generators)), "generator", "measure", "value", "low", "high",
                "fraction", labels=SHOWN,
            )
        }  # fmt: skip
        result.captions = {"detection": "Detection of each generator with 95 % intervals."}
        result.warnings += oracle_warning(subject)
        return result


def _summarize(
    subject: Subject, measure: str, estimates: Mapping[str, Estimate]
) -> dict[str, Estimate]:
    """Means over seen, unseen and all generators, and the worst, without repetitions."""
    smallest, everyone = measure not in _LOWER_IS_BETTER, list(estimates.values())
    found = summarize_generators(subject, estimates, smallest)
    if {"seen", "unseen"} <= set(found):
        found["all"] = mean(everyone)
    if "seen" in found and len(everyone) > 1:
        found["all_worst"] = worst(everyone, smallest)
    return found


def _points(table: pd.DataFrame) -> pd.DataFrame:
    """One row per generator and measure of the figure."""
    return pd.concat([
        table[["generator", "seen"]].assign(
            value=table[name], low=table[f"{name}_low"], high=table[f"{name}_high"], measure=name
        )
        for name in SHOWN
    ], ignore_index=True)  # fmt: skip
