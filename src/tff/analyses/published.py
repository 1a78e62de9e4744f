"""Comparison with published results."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pandas as pd

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import Scores, evaluators
from tff.analyses.engine.subject import Subject
from tff.analyses.sensitivity import Sensitivity
from tff.options import checked, one_of
from tff.plots import grouped
from tff.published.rankings import TITLES, recognize_architecture
from tff.published.tables import (
    COLUMNS,
    RECIPES,
    Cell,
    Measurement,
    compare,
    load_cells,
    normalize_name,
)
from tff.types import Result

ABOUT = """
Published table cells, measured here: average precision and accuracies with nothing dropped, with
the top, random and the lowest k channels dropped, and without color. "Inside" means that the
published number, which is rounded, lies in our 95 % interval over the images: of the bootstrap, and
Wilson's for accuracies on real or generated images alone. Some numbers of the very same detector on
other images would lie outside too. And the interval ignores variation between trainings: detectors
of one recipe may differ by more.

Cells are matched by the name of the generator. The same name on other images is another
measurement; the published ones use all test images of ForenSynths. A row whose protocol differs
from ours is shown but not counted, and so is a number that is likely wrong in its source.
"""
#: Intervention (column `what`) -> words.
LABELS = {
    "baseline": "nothing dropped",
    "top_k": "top k dropped",
    "random_k": "random k dropped",
    "low_k": "lowest k dropped",
    "gray": "without color",
}


@dataclass(frozen=True)
@checked("analysis.published")
class Published(Analysis):
    """Differences from the published sensitivity, color-robust and CNNDetection tables.

    Args:
        recipe: the published detector to compare with: trained with blur and JPEG at p = 0.5
            (`blur_jpeg`), at p = 0.1 (`blur_jpeg_p01`), or with random grayscale (`color_robust`).
    """

    recipe: Annotated[str, one_of(RECIPES)] = "blur_jpeg"

    def answer(self, subject: Subject) -> Result:
        """Table `published`, one row per published number that is measured here too."""
        result = Result("Comparison with published results", ABOUT)
        result.tables = {"published": pd.DataFrame(columns=COLUMNS)}
        name = recognize_architecture(subject.detector)
        cells = [c for c in load_cells() if (c.architecture, c.recipe) == (name, self.recipe)]
        if not cells:
            title = TITLES[name] if name else "this architecture"
            result.findings = [
                f"Nothing to compare with: no numbers are published for {title}, trained as "
                f"{self.recipe}. There are numbers for {' and '.join(TITLES.values())} (blur_jpeg, "
                "color_robust) and for ResNet-50 (blur_jpeg_p01)."
            ]
            return result
        generators = subject.images.test.generators
        if {c.generator for c in cells} & {normalize_name(g) for g in generators}:
            numbers = measure_numbers(subject)
            rows = [
                compare(cell, generator, numbers[key], subject.protocol)
                for cell in cells
                for generator in generators
                if normalize_name(generator) == cell.generator
                if (key := (cell.what, generator, cell.metric)) in numbers
            ]
            table = pd.DataFrame(rows, columns=COLUMNS)
            result.tables = {"published": table}
            _add_findings(result, table)
            precision = table[(table["metric"] == "ap") & table["ours"].notna()]
            result.figures = {
                "published": grouped.published_comparison(precision, LABELS, "average precision")
            }
            result.captions = {
                "published": "Average precision: ours (dots, with 95 % intervals) and published."
            }
        _add_unmatched(result, generators, cells)
        return result


def _add_findings(result: Result, table: pd.DataFrame) -> None:
    """Findings, warnings and scalars of a table that is not empty."""
    same_protocol = table["protocol_matches"].astype(bool)
    counted = table[same_protocol & (table["suspect"] == "")]
    is_ap = counted["metric"] == "ap"
    for key, words, group in (
        ("ap", "average precisions", counted[is_ap]),
        ("accuracy", "accuracies", counted[~is_ap]),
    ):
        group = group[group["ours"].notna()]
        if group.empty:
            continue
        farthest = group.iloc[int(group["difference"].abs().to_numpy().argmax())]
        inside = int(group["inside_interval"].eq(True).sum())
        mean_difference = float(group["difference"].abs().mean())
        result.findings.append(
            f"Of {len(group)} published {words} measured by the same protocol, {inside} lie in our "
            f"95 % intervals. Ours differ by {100 * mean_difference:.1f} percentage points on "
            f"average, most on {farthest['generator']} ({LABELS[farthest['what']]}): "
            f"{100 * farthest['ours']:.1f} here, {100 * farthest['published']:.1f} published."
        )
        result.scalars |= {
            f"{key}_compared": len(group),
            f"{key}_inside": inside,
            f"{key}_mean_difference": float(group["difference"].mean()),
            f"{key}_mean_absolute_difference": mean_difference,
        }
    if n_others := int((~same_protocol).sum()):
        result.findings.append(
            f"{n_others} published numbers were measured by another protocol than ours; the column "
            "protocol_differs says how it differs, and data.crop or report/protocol can change it."
        )
    for reason, group in table[table["suspect"] != ""].groupby("suspect"):
        names = ", ".join(dict.fromkeys(group["generator"]))
        result.warnings.append(
            f"{len(group)} published numbers of {names} are suspect and not counted: {reason}."
        )


def _add_unmatched(result: Result, generators: Sequence[str], cells: Sequence[Cell]) -> None:
    """Findings on generators without a counterpart on the other side."""
    published = list(dict.fromkeys(cell.generator for cell in cells))
    tested = {normalize_name(generator) for generator in generators}
    unpublished = [g for g in generators if normalize_name(g) not in published]
    untested = [g for g in published if g not in tested]
    if len(unpublished) == len(generators):
        result.findings.append(
            f"Nothing to compare with: none of the generators tested ({', '.join(unpublished)}) "
            "has a published number. Test images of some of these are needed: "
            f"{', '.join(published)}."
        )
    elif unpublished or untested:
        result.findings.append(
            f"Not compared: {', '.join(unpublished) or 'none'} (tested here, not published) and "
            f"{', '.join(untested) or 'none'} (published, not tested here)."
        )


#: (what, generator, metric) -> our numbers: several if measured in several ways.
Numbers = dict[tuple[str, str, str], list[Measurement]]
#: Metric -> table of `Sensitivity` with it. Accuracies come by every threshold rule.
_SENSITIVITY = {
    "ap": "sensitivity",
    "real_accuracy": "sensitivity_thresholds",
    "fake_accuracy": "sensitivity_thresholds",
}


def measure_numbers(subject: Subject) -> Numbers:
    """Our numbers, from the analyses whose tables were published.

    AP and thresholds use float32 probabilities, as in all published tables, even if the protocol of
    the subject does not. Accuracies over all images, as Wang et al. print them, are at P > 0.5.
    """
    numbers: Numbers = {}
    subject = copy.copy(subject)  # shares its passes and what was computed so far
    scoring = replace(subject.options.scoring, scores="probabilities")
    subject.options = replace(subject.options, scoring=scoring)
    sensitivity = Sensitivity()(subject).tables
    for metric, name in _SENSITIVITY.items():
        for row in sensitivity[name].to_dict("records"):
            what = "baseline" if row["dropout"] == "none" else str(row["dropout"])
            rule = "" if metric == "ap" else str(row["threshold_rule"])
            key = (what, str(row["generator"]), metric)
            # Published is AP of the mean probability of the random draws.
            column = "ap_ensemble" if metric == "ap" else metric
            numbers.setdefault(key, []).append(_measurement(row, column, rule, int(row["k"])))
    for row in Ablation(Grayscale())(subject).tables["ablation"].to_dict("records"):
        numbers["gray", str(row["generator"]), "ap"] = [_measurement(row, "ap_ablated")]
    scores = Scores.of(subject, subject.evaluate().logits)
    for evaluator in evaluators(subject):
        estimate = evaluator.accuracies(scores, "half")["accuracy"]
        numbers["baseline", evaluator.generator, "accuracy"] = [
            Measurement(estimate.value, *estimate.interval, threshold="half")
        ]
    return numbers


def _measurement(
    row: Mapping[Any, Any], column: str, threshold: str = "", k: int = 0
) -> Measurement:
    value, low, high = (float(row[column + end]) for end in ("", "_low", "_high"))
    return Measurement(value, low, high, threshold, k)
