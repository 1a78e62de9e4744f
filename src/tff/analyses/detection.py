"""How well the detector does: average precision, accuracies, false alarms, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import (
    GROUPS,
    Scores,
    evaluators,
    summarize_generators,
)
from tff.analyses.engine.subject import Subject
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, mean, worst
from tff.types import Result

ABOUT = """
Average precision (AP) and the area under the ROC curve (AUC) need no threshold; accuracies do.
"Caught at 1 % false alarms" is the share of generated images found by the threshold that calls at
most 1 % of real images generated. Calibration error (ECE, 15 bins) and Brier score ask whether a
probability of 0.9 is right in 90 % of the cases; 0 is best.

The mean over generators hides the one that the detector fails on, so the worst one stands beside
it. Whiskers are 95 % bootstrap intervals over images, not over trainings.
"""
ERRORS = ("ece", "brier")  # of these less is better
WORDS = GROUPS | {"all": "all generators (mean)", "all_worst": "the worst of all"}


@dataclass(frozen=True)
class Detection(Analysis):
    """All measures of detection for each generator, their mean, and the worst."""

    sanity_checks: ClassVar = "files"

    def answer(self, subject: Subject) -> Result:
        """Table `detection`, a row a generator, then mean and worst."""
        scores = Scores.of(subject, subject.evaluate().logits)
        found = {
            evaluator.generator: (evaluator, evaluator.measure(scores))
            for evaluator in evaluators(subject)
        }
        rows = [
            {
                "generator": name,
                "seen": evaluator.seen,
                **{c: v for m, e in measures.items() for c, v in e.columns(m).items()},
                **evaluator.columns(),
            }
            for name, (evaluator, measures) in found.items()
        ]
        names = list(next(iter(found.values()))[1])
        overall = {
            measure: _overall(subject, {g: of[measure] for g, (_, of) in found.items()}, measure)
            for measure in names
        }
        for where in overall["ap"]:
            of_where = {m: overall[m][where] for m in names}
            columns = {c: v for m, e in of_where.items() for c, v in e.columns(m).items()}
            rows.append({"generator": WORDS[where], "seen": where == "seen", **columns})
        table = pd.DataFrame(rows)
        result = Result("How well the detector does", ABOUT)
        result.tables = {"detection": table}
        for where, ap in overall["ap"].items():
            caught = overall["tpr_at_1"][where]
            result.findings.append(
                f"On {WORDS[where]}: AP {ap.value:.3f} ({ap.low:.3f} to {ap.high:.3f}); at 1 % "
                f"false alarms it catches {100 * caught.value:.0f} % ({100 * caught.low:.0f} to "
                f"{100 * caught.high:.0f})."
            )
            result.scalars |= {f"{where}_{m}": overall[m][where].value for m in names}
        shown = table.head(len(found)).melt(
            ["generator", "seen"], ["ap", "tpr_at_5", "tpr_at_1"], "measure", "value"
        )
        for end in ("low", "high"):
            shown[end] = [
                table.loc[table["generator"] == row.generator, f"{row.measure}_{end}"].iloc[0]
                for row in shown.itertuples()
            ]
        words = {
            "ap": "average precision",
            "tpr_at_5": "caught at 5 % false alarms",
            "tpr_at_1": "caught at 1 % false alarms",
        }
        result.figures = {
            "detection": grouped.grouped_points(
                shown, "generator", "measure", "value", "low", "high", "fraction", labels=words
            )
        }
        result.captions = {"detection": "Detection of each generator with 95 % intervals."}
        if subject.options.scoring.threshold == "oracle":
            result.warnings.append(
                "Accuracies use a threshold chosen on the test images themselves: optimistic."
            )
        return result


def _overall(
    subject: Subject, estimates: Mapping[str, Estimate], measure: str
) -> dict[str, Estimate]:
    """Mean over the generators seen, those never seen and all, and the worst, each told once."""
    smallest, everyone = measure not in ERRORS, list(estimates.values())
    found = summarize_generators(subject, estimates, smallest)
    if {"seen", "unseen"} <= set(found):
        found["all"] = mean(everyone)
    if "seen" in found and len(everyone) > 1:
        found["all_worst"] = worst(everyone, smallest)
    return found
