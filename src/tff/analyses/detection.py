"""Detection: average precision, accuracies, true positive rates and calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import (
    Scores,
    describe_resamples,
    estimate_columns,
    evaluators,
    group_labels,
    oracle_warning,
    summarize_generators,
)
from tff.analyses.engine.subject import Subject
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, mean, worst
from tff.statistics.detection import (
    MEASURES,
    RATES,
    calibrated_errors,
    judge_calibration,
    least_real_images,
)
from tff.types import Floats, Result

ABOUT = """
Average precision (AP) and the area under the ROC curve (AUC) need no threshold; accuracies do.
"Caught at 1 % false alarms" is the share of generated images found at a threshold that calls 1 % of
new real images generated, on average. It takes 299 real images to know that threshold, and 59 for
that of 5 %: with fewer the share is not given. Expected calibration error (ECE, 15 bins) and Brier
score measure whether a probability of 0.9 is right in 90 % of the cases; 0 is best. With few images
the ECE of a perfectly calibrated detector is not 0 either: 95 % of such detectors with the same
probabilities stay below `ece_null`.

The mean over generators hides the one on which the detector fails, so the table also has the worst
one. Whiskers are 95 % intervals of the chance of the images, not of trainings. They keep a width
where all images are right: Wilson's score interval of the (effective) number of images. They are
meant to hold at least 95 % and are too wide near 1 rather than too narrow.
"""
#: Rows of the table after those of the generators and of `GROUPS`.
ALL_LABELS = {"all": "all generators (mean)", "all_worst": "the worst of all"}
#: Measures in the figure.
SHOWN = {
    "ap": "average precision",
    "tpr_at_5": "caught at 5 % false alarms",
    "tpr_at_1": "caught at 1 % false alarms",
}
#: Column of the calibration error that 95 % of calibrated detectors stay below.
NULL = "ece_null"
_LOWER_IS_BETTER = ("ece", NULL, "brier")


@dataclass(frozen=True)
class Detection(Analysis):
    """All measures of detection for each generator, their mean, and the worst."""

    sanity_checks: ClassVar = "files and number"

    def answer(self, subject: Subject) -> Result:
        """Table `detection`: one row per generator, then means and worst."""
        scores = Scores.of(subject, subject.evaluate().logits)
        rows: list[dict[str, object]] = []
        measured: dict[str, dict[str, Estimate]] = {}  # measure -> generator -> estimate
        for number, evaluator in enumerate(evaluators(subject)):
            measures = evaluator.measure(scores)
            p, seed = scores.p[evaluator.rows], subject.seed + 1000 * number
            measures[NULL] = _null(calibrated_errors(p, subject.draws, seed))
            for name, estimate in measures.items():
                measured.setdefault(name, {})[evaluator.generator] = estimate
            first = {"generator": evaluator.generator, "seen": evaluator.seen}
            rows.append(first | _columns(measures) | evaluator.columns())
        n_generators = len(rows)
        overall = {name: _summarize(subject, name, found) for name, found in measured.items()}
        labels = group_labels(subject) | ALL_LABELS
        for where in overall["ap"]:
            first = {"generator": labels[where], "seen": where == "seen"}
            rows.append(first | _columns({name: found[where] for name, found in overall.items()}))
        table = pd.DataFrame(rows)
        result = Result("How well the detector does", ABOUT)
        result.tables = {"detection": table}
        for where in overall["ap"]:
            estimates = {name: found[where] for name, found in overall.items()}
            of = _members(subject, where, list(measured["ap"]))
            result.findings.append(_describe(labels[where], where, estimates, of, measured))
            result.scalars |= {f"{where}_{name}": e.value for name, e in estimates.items()}
        shown = [name for name in SHOWN if table[name].notna().any()]
        result.figures = {
            "detection": grouped.grouped_points(
                _points(table.head(n_generators), shown), "generator", "measure", "value", "low",
                "high", "fraction", labels={name: SHOWN[name] for name in shown},
            )
        }  # fmt: skip
        result.captions = {
            "detection": f"Detection of each generator with 95 % intervals. "
            f"{describe_resamples(subject)}"
        }
        result.warnings += [*_missing_rates(measured), *oracle_warning(subject)]
        return result


def _null(errors: Floats) -> Estimate:
    """Calibration errors of calibrated detectors, with the one that 95 % of them stay below."""
    return Estimate(float(np.quantile(errors, 0.95)) if len(errors) else np.nan, errors)


def _columns(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Columns of the table."""
    null = estimates[NULL]
    judged = {**estimates, "ece": judge_calibration(estimates["ece"], null.draws)}
    return estimate_columns(judged, MEASURES) | {NULL: null.value}


def _members(subject: Subject, where: str, generators: list[str]) -> list[str]:
    """Generators of a group."""
    if where.startswith("all"):
        return generators
    return [name for name in generators if (name in subject.seen) == (where == "seen")]


def _describe(
    label: str,
    where: str,
    estimates: Mapping[str, Estimate],
    members: list[str],
    measured: Mapping[str, Mapping[str, Estimate]],
) -> str:
    """What the detector does on a group of generators, in one sentence."""

    def name_worst(measure: str) -> str:
        if not where.endswith("worst"):
            return ""
        known = {g: e.value for g in members if not np.isnan((e := measured[measure][g]).value)}
        return f"; {min(known, key=lambda generator: known[generator])}" if known else ""

    ap = estimates["ap"]
    text = f"On {label}: AP {ap.value:.3f} ({ap.low:.3f} to {ap.high:.3f}{name_worst('ap')})"
    for measure, rate in RATES.items():
        caught = estimates[measure]
        if not np.isnan(caught.value):
            text += (
                f"; at {100 * rate:.0f} % false alarms it catches {100 * caught.value:.0f} % "
                f"({100 * caught.low:.0f} to {100 * caught.high:.0f}{name_worst(measure)})"
            )
            break
    ece, null = estimates["ece"].value, estimates[NULL].value
    if not where.endswith("worst") and not np.isnan([ece, null]).any():
        remark = "" if ece > null else ": no sign of miscalibration"
        text += (
            f"; calibration error {ece:.3f}, where 95 % of calibrated detectors stay below "
            f"{null:.3f}{remark}"
        )
    return f"{text}."


def _missing_rates(measured: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    """A warning for each false alarm rate whose threshold some generators have too few images for.

    Rates that no generator lacks images for, and all of them without images of both kinds, are not
    mentioned.
    """
    lines = []
    for measure, rate in RATES.items():
        known = measured["auc"]
        names = [
            generator
            for generator, estimate in measured[measure].items()
            if np.isnan(estimate.value) and not np.isnan(known[generator].value)
        ]
        if names:
            lines.append(
                f"The share caught at {100 * rate:.0f} % false alarms is not given for "
                f"{', '.join(names)}: that takes at least {least_real_images(rate)} real images."
            )
    return lines


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
    if measure == NULL:
        found = {where: _null(null.draws) for where, null in found.items()}
    return found


def _points(table: pd.DataFrame, shown: Iterable[str]) -> pd.DataFrame:
    """One row per generator and measure of the figure."""
    return pd.concat([
        table[["generator", "seen"]].assign(
            value=table[name], low=table[f"{name}_low"], high=table[f"{name}_high"], measure=name
        )
        for name in shown
    ], ignore_index=True)  # fmt: skip
