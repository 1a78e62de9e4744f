"""Comparison with published results."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.subject import Subject
from tff.analyses.sensitivity import Sensitivity
from tff.plots import grouped as figures
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
from tff.statistics.bootstrap import Estimate, Resamples, draw_resamples, evaluate_resamples
from tff.types import Floats, Result

#: (what, generator, metric) -> our numbers: several if measured in several ways.
Numbers = dict[tuple[str, str, str], list[Measurement]]
#: Table -> what is taken from it: accuracies by every threshold, whatever the subject's is.
_SENSITIVITY = {
    "sensitivity": ("ap",),
    "sensitivity_thresholds": ("real_accuracy", "fake_accuracy"),
}


def numbers_of(subject: Subject) -> Numbers:
    """From the analyses whose tables were published, and from the passes that they share.

    AP and thresholds are of float32 probabilities, as in all of these, whatever the protocol of the
    subject. Accuracies over all images, as Wang et al. print them, are at P > 0.5.
    """
    numbers: Numbers = {}
    subject = copy.copy(subject)  # which shares its passes, and knows what was computed so far
    scoring = replace(subject.options.scoring, scores="probabilities")
    subject.options = replace(subject.options, scoring=scoring)
    sensitivity = Sensitivity()(subject).tables
    for name, metrics in _SENSITIVITY.items():
        for row in sensitivity[name].to_dict("records"):
            what = "baseline" if row["dropout"] == "none" else str(row["dropout"])
            k = 0 if what == "baseline" else int(row["k"])
            for metric in metrics:
                rule = "" if metric == "ap" else str(row["threshold_rule"])
                number = _number(row, metric, rule, k)
                numbers.setdefault((what, str(row["generator"]), metric), []).append(number)
    cue = Grayscale()
    table = Ablation(cue)(subject).tables["ablation"]
    for row in table[table["cue"] == cue.cue].to_dict("records"):
        key = ("gray", str(row["generator"]), "ap")
        numbers.setdefault(key, []).append(_number(row, "ap_ablated"))
    logits = subject.evaluate().logits
    for generator, at in subject.generators():
        labels = subject.labels[at]
        right = (logits[at] > 0) == (labels == 1)
        drawn = evaluate_resamples(
            _Share(right), draw_resamples(labels, subject.draws, subject.seed)
        )
        share = Estimate(float(right.mean()), drawn)
        half = Measurement(share.value, share.low, share.high, threshold="half")
        numbers["baseline", generator, "accuracy"] = [half]
    return numbers


@dataclass(frozen=True)
class _Share:
    """Resampled rows (D, N) -> the share that is true, (D,)."""

    of: NDArray[np.bool_]

    def __call__(self, rows: Resamples) -> Floats:
        share: Floats = self.of[rows].mean(-1)
        return share


def _number(row: Mapping[Any, Any], column: str, threshold: str = "", k: int = 0) -> Measurement:
    low, high = (float(row.get(f"{column}_{end}", np.nan)) for end in ("low", "high"))
    return Measurement(float(row[column]), low, high, threshold, k)


ABOUT = """
The cells that others print, measured here: average precision and accuracies with nothing dropped,
with the top, random and the lowest k channels dropped, and without color. "Inside" says that the
published number, which is rounded, lies in our 95 % interval over the images: of the bootstrap, and
Wilson's for accuracies on real or generated images alone. That interval knows nothing of another
training: detectors of one recipe may differ by more.

Cells are matched by the name of the generator. The same name on another set of images is another
measurement; the published ones are on all test images of ForenSynths. A row whose protocol differs
from ours is shown, but not counted; so is a number that is likely wrong in its source.
"""
WORDS = {
    "baseline": "nothing dropped",
    "top_k": "top k dropped",
    "random_k": "random k dropped",
    "low_k": "lowest k dropped",
    "gray": "without color",
}


@dataclass(frozen=True)
class Published(Analysis):
    """Differences from the published sensitivity, color-robust and CNNDetection tables.

    Args:
        recipe: the published detector to compare with: trained with blur and JPEG at p = 0.5
            (`blur_jpeg`), at p = 0.1 (`blur_jpeg_p01`), or with random grayscale (`color_robust`).

    Raises:
        ValueError: there is no such recipe.
    """

    recipe: str = "blur_jpeg"

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ValueError(
                f"analysis.published.recipe={self.recipe}: unknown; there are {', '.join(RECIPES)}"
            )

    def answer(self, subject: Subject) -> Result:
        """Table `published`, a row a published number that we have too."""
        result = Result("Held against the published numbers", ABOUT)
        result.tables = {"published": pd.DataFrame(columns=COLUMNS)}
        name = recognize_architecture(subject.detector)
        theirs = [c for c in load_cells() if (c.architecture, c.recipe) == (name, self.recipe)]
        if not theirs:
            which = TITLES[name] if name else "this architecture"
            result.findings = [
                f"Nothing to compare with: no numbers are published for {which}, trained as "
                f"{self.recipe}. There are numbers for {' and '.join(TITLES.values())} (blur_jpeg, "
                "color_robust) and for ResNet-50 (blur_jpeg_p01)."
            ]
            return result
        generators = subject.images.test.generators
        common = {c.generator for c in theirs} & {normalize_name(g) for g in generators}
        if common:
            numbers = numbers_of(subject)
            rows = [
                compare(cell, generator, numbers[key], subject.protocol)
                for cell in theirs
                for generator in generators
                if normalize_name(generator) == cell.generator
                if (key := (cell.what, generator, cell.metric)) in numbers
            ]
            result.tables = {"published": pd.DataFrame(rows, columns=COLUMNS)}
            _tell(result, result.tables["published"])
        _tell_missing(result, generators, theirs)
        return result


def _tell(result: Result, table: pd.DataFrame) -> None:
    """Findings, warnings, figure and scalars of a table that is not empty."""
    fair = table[table["protocol_matches"].astype(bool) & (table["suspect"] == "")]
    kinds = {"average precisions": fair["metric"] == "ap", "accuracies": fair["metric"] != "ap"}
    for (word, which), key in zip(kinds.items(), ("ap", "accuracy"), strict=True):
        group = fair[which & fair["ours"].notna()]
        if group.empty:
            continue
        far = group.iloc[int(group["difference"].abs().to_numpy().argmax())]
        inside = int(group["inside_interval"].eq(True).sum())
        apart = float(group["difference"].abs().mean())
        result.findings.append(
            f"Of {len(group)} published {word} that were measured in the same way, {inside} lie in "
            f"our 95 % intervals. Ours differ by {100 * apart:.1f} percentage points on average, "
            f"most on {far['generator']} ({WORDS[far['what']]}): {100 * far['ours']:.1f} here, "
            f"{100 * far['published']:.1f} published."
        )
        result.scalars |= {
            f"{key}_compared": len(group),
            f"{key}_inside": inside,
            f"{key}_mean_difference": float(group["difference"].mean()),
            f"{key}_mean_absolute_difference": apart,
        }
    other = int((~table["protocol_matches"].astype(bool)).sum())
    if other:
        result.findings.append(
            f"{other} published numbers were measured otherwise than ours; the column "
            "protocol_differs says how, and data.crop or report/protocol can change it."
        )
    for reason, group in table[table["suspect"] != ""].groupby("suspect"):
        names = ", ".join(dict.fromkeys(group["generator"]))
        result.warnings.append(
            f"{len(group)} published numbers of {names} are suspect and not counted: {reason}."
        )
    precision = table[(table["metric"] == "ap") & table["ours"].notna()]
    result.figures = {
        "published": figures.published_comparison(precision, WORDS, "average precision")
    }
    result.captions = {
        "published": "Average precision: ours (dots, with 95 % intervals) and the published one."
    }


def _tell_missing(result: Result, generators: Sequence[str], theirs: Sequence[Cell]) -> None:
    """Which generators have no counterpart on the other side."""
    published = list(dict.fromkeys(cell.generator for cell in theirs))
    tested = {normalize_name(generator) for generator in generators}
    alone = [g for g in generators if normalize_name(g) not in published]
    absent = [g for g in published if g not in tested]
    if len(alone) == len(generators):
        result.findings.append(
            f"Nothing to compare with: none of the generators tested ({', '.join(alone)}) has a "
            f"published number. Test images of some of these are needed: {', '.join(published)}."
        )
    elif alone or absent:
        result.findings.append(
            f"Not compared: {', '.join(alone) or 'none'} (tested here, not published) and "
            f"{', '.join(absent) or 'none'} (published, not tested here)."
        )
