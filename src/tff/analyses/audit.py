"""Can real and generated images be told apart by their files alone?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from tff.analyses.engine import sanity_checks
from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.subject import Subject
from tff.data.manifest import duplicates
from tff.plots import grouped
from tff.types import Result

ABOUT = """
Before a detector is trusted, its images should be: when generated images are PNG files and real
ones JPEG, or the two differ in size, a detector learns that. A trivial classifier (a decision tree
of three questions, each image judged by a tree that has not seen it) is asked to tell them apart by
what stands in the files' headers: format, mode, JPEG quality and chroma sampling, height and width.
An area under the ROC curve (AUC) of 0.5 means that it cannot; above {alarm:g} is an alarm.
"""


@dataclass(frozen=True)
class Audit(Analysis):
    """Formats, sizes, duplicates and oddities of all files; needs no detector."""

    sanity_checks: ClassVar = "none"

    def answer(self, subject: Subject) -> Result:
        """Tables `formats`, `format_bias`, `duplicates`, `odd_files`."""
        sets = subject.images.by_name
        result = Result(
            "Can the files alone be told apart?", ABOUT.format(alarm=sanity_checks.ALARM)
        )
        bias = _joined(
            {name: sanity_checks.format_bias(images, subject.seed) for name, images in sets.items()}
        )
        twice = duplicates(sets)
        odd = _joined({name: _odd(images.manifest) for name, images in sets.items()})
        skipped = _joined({name: images.skipped for name, images in sets.items()})
        result.tables = {
            "formats": _joined(
                {name: sanity_checks.describe_formats(images) for name, images in sets.items()}
            ),
            "format_bias": bias,
            "duplicates": twice,
            "odd_files": pd.concat(
                [odd.rename(columns={"note": "problem"}), skipped], ignore_index=True
            ),
        }
        known = bias.dropna(subset="auc").sort_values("auc")
        worst = None if known.empty else known.iloc[-1]
        result.findings = [
            "There are too few images to tell whether the files give them away."
            if worst is None
            else f"By their files alone, images of {worst['generator']} ({worst['set']}) are told "
            f"from real ones with an AUC of {worst['auc']:.2f} "
            f"({worst['auc_low']:.2f} to {worst['auc_high']:.2f}), the most of all generators; "
            f"{int(bias['alarm'].sum())} of {len(bias)} give alarm."
        ]
        for name, images in sets.items():
            result.alarms += [
                f"{name}: {line}"
                for line in sanity_checks.format_bias_alarms(bias[bias["set"] == name])
            ]
            result.warnings += [f"{name}: {line}" for line in sanity_checks.file_warnings(images)]
        if len(twice):
            first = twice.iloc[0]
            result.warnings.append(
                f"{len(twice)} files stand in two sets, or among real and generated images, with "
                f"the same bytes: {first['path']} is {first['same_as']}; see duplicates.csv."
            )
        result.scalars = {
            "auc_max": float(bias["auc"].max()),
            "alarms": float(bias["alarm"].sum()),
            "duplicates": float(len(twice)),
            "files_skipped": float(len(skipped)),
        }
        result.figures["format_bias"] = grouped.grouped_points(
            bias, "generator", "set", "auc", "auc_low", "auc_high",
            "AUC of a classifier that sees file headers only", reference=sanity_checks.ALARM,
        )  # fmt: skip
        result.captions["format_bias"] = (
            "0.5: the files tell nothing. Right of the dashed line "
            f"({sanity_checks.ALARM:g}) they do, and a detector may learn that."
        )
        return result


def _odd(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["note"] != ""][["path", "note"]]


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of several, which the column `set` tells apart."""
    parts = [table.assign(set=name) for name, table in tables.items()]
    table = pd.concat(parts, ignore_index=True)
    return table[["set", *(column for column in table if column != "set")]]
