"""Our numbers beside the published ones, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from tff.analyses.base import Analysis
from tff.analyses.comparable import numbers_of
from tff.analyses.subject import Subject
from tff.plots import grouped as figures
from tff.published.rankings import TITLES, architecture
from tff.published.tables import COLUMNS, RECIPES, Cell, cells, compared, plain_name
from tff.types import Result

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
        name = architecture(subject.detector)
        theirs = [c for c in cells() if (c.architecture, c.recipe) == (name, self.recipe)]
        if not theirs:
            which = TITLES[name] if name else "this architecture"
            result.findings = [
                f"Nothing to compare with: no numbers are published for {which}, trained as "
                f"{self.recipe}. There are numbers for {' and '.join(TITLES.values())} (blur_jpeg, "
                "color_robust) and for ResNet-50 (blur_jpeg_p01)."
            ]
            return result
        generators = subject.images.test.generators
        common = {c.generator for c in theirs} & {plain_name(g) for g in generators}
        if common:
            numbers = numbers_of(subject)
            rows = [
                compared(cell, generator, numbers[key], subject.protocol)
                for cell in theirs
                for generator in generators
                if plain_name(generator) == cell.generator
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
    result.figures = {"published": figures.beside_published(precision, WORDS, "average precision")}
    result.captions = {
        "published": "Average precision: ours (dots, with 95 % intervals) and the published one."
    }


def _tell_missing(result: Result, generators: Sequence[str], theirs: Sequence[Cell]) -> None:
    """Which generators have no counterpart on the other side."""
    published = list(dict.fromkeys(cell.generator for cell in theirs))
    tested = {plain_name(generator) for generator in generators}
    alone = [g for g in generators if plain_name(g) not in published]
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
