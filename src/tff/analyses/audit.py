"""Audit: do the files give away which images are generated?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.sanity_checks import (
    ALARM,
    describe_formats,
    file_warnings,
    format_bias,
    format_bias_alarms,
)
from tff.analyses.engine.subject import Subject
from tff.data.dataset import Images
from tff.data.manifest import duplicates
from tff.plots import grouped
from tff.types import Result

ABOUT = """
Before a detector can be trusted, its images must be: if generated images are PNG files and real
ones JPEG, or the two differ in size, a detector learns that. Here a trivial classifier (a decision
tree of depth 3, cross-validated: no tree judges an image that it was trained on) tries to tell them
apart by the headers of their files: format, mode, JPEG quality and chroma sampling, height and
width. An area under the ROC curve (AUC) of 0.5 means that it cannot; an AUC above {alarm:g} is an
alarm.
"""


@dataclass(frozen=True)
class Audit(Analysis):
    """Formats, sizes, duplicates and problems of all files; needs no detector."""

    sanity_checks: ClassVar = "none"

    def answer(self, subject: Subject) -> Result:
        """Tables `formats`, `format_bias`, `duplicates`, `odd_files`."""
        sets = subject.images.by_name
        bias = _collect(sets, lambda images: format_bias(images, subject.seed))
        repeated = duplicates(sets)
        notes = _collect(sets, _notes)
        skipped = _collect(sets, lambda images: images.skipped)
        result = Result("Can the files alone be told apart?", ABOUT.format(alarm=ALARM))
        result.tables = {
            "formats": _collect(sets, describe_formats),
            "format_bias": bias,
            "duplicates": repeated,
            "odd_files": pd.concat([notes, skipped], ignore_index=True),
        }
        known = bias.dropna(subset="auc").sort_values("auc")
        worst = None if known.empty else known.iloc[-1]
        result.findings = [
            "There are too few images to tell whether the files give them away."
            if worst is None
            else f"By their files alone, images of {worst['generator']} ({worst['set']}) can be "
            f"told from real ones with an AUC of {worst['auc']:.2f} "
            f"({worst['auc_low']:.2f} to {worst['auc_high']:.2f}), the highest of all generators; "
            f"{int(bias['alarm'].sum())} of {len(bias)} generators raise an alarm."
        ]
        warned: dict[str, list[str]] = {}  # remarks on the whole tree once
        for name, images in sets.items():
            alarms = format_bias_alarms(bias[bias["set"] == name])
            result.alarms += [f"{name}: {line}" for line in alarms]
            for line in file_warnings(images):
                warned.setdefault(line, []).append(name)
        result.warnings += [f"{', '.join(names)}: {line}" for line, names in warned.items()]
        if len(repeated):
            first = repeated.iloc[0]
            result.warnings.append(
                f"{len(repeated)} files have a byte-identical copy in another set or under the "
                f"other label: {first['path']} equals {first['same_as']}; see duplicates.csv."
            )
        result.scalars = {
            "auc_max": float(bias["auc"].max()),
            "alarms": float(bias["alarm"].sum()),
            "duplicates": float(len(repeated)),
            "files_skipped": float(len(skipped)),
        }
        result.figures["format_bias"] = grouped.grouped_points(
            bias, "generator", "set", "auc", "auc_low", "auc_high",
            "AUC of a classifier that sees file headers only", reference=ALARM,
        )  # fmt: skip
        result.captions["format_bias"] = (
            "At 0.5 the headers give nothing away. Right of the dashed line "
            f"({ALARM:g}) they do, and a detector may learn that."
        )
        return result


def _collect(sets: dict[str, Images], describe: Callable[[Images], pd.DataFrame]) -> pd.DataFrame:
    """Tables of all sets in one; the first column, `set`, names the set."""
    parts = [describe(images).assign(set=name) for name, images in sets.items()]
    table = pd.concat(parts, ignore_index=True)
    return table[["set", *(column for column in table if column != "set")]]


def _notes(images: Images) -> pd.DataFrame:
    """Files that were read with a note."""
    table = images.manifest
    return table[table["note"] != ""][["path", "note"]].rename(columns={"note": "problem"})
