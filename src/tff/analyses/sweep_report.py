"""The numbers of one training's report that a sweep is judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tff.analyses.emergence_steps import checked
from tff.analyses.engine.evaluation import WHERE

#: What tells how a report was made; a table of several reports should have one value of each.
PROTOCOL = ("protocol", "crop", "resize", "relevance", "analysis_seed", "cue", "generators")
ENDS = ("", "_low", "_high")


def measured(report: Path) -> dict[str, object]:
    """Seen, unseen and worst AP with intervals, AP drop without the cue, conditional shares, k.

    Shares and the AP drop are means over the generators that were never seen. What the report does
    not hold is left out.

    Args:
        report: folder with `tables/`; may be missing.

    Raises:
        ValueError: a table cannot be read, or is of several checkpoints.
    """
    tables = {
        name: _table(report / "tables" / f"{name}.csv")
        for name in ("detection", "ablation", "ablation_summary", "conditional_share")
    }
    found: dict[str, object] = {}
    for name in ("ablation", "detection"):  # the second has intervals of the mean
        if (table := tables[name]) is not None:
            found |= _ap(table)
    if (table := tables["ablation"]) is not None:
        unseen = table[~table["seen"]]
        drop = unseen["ap"] - unseen["ap_ablated"]
        found["ap_drop"] = float(drop.mean())
    if (table := tables["ablation_summary"]) is not None:
        row = table[table["where"] == "unseen"]
        found |= {f"ap_drop{end}": float(row[f"ap_drop{end}"].iloc[0]) for end in ENDS if len(row)}
    if (table := tables["conditional_share"]) is not None:
        unseen = table[~table["seen"]]
        found["conditional_share"] = float(unseen["share"].mean())
        if "share_separating" in table:
            found["share_separating"] = float(unseen["share_separating"].mean())
        found["k"] = int(table["k"].iloc[0])
    for table in tables.values():
        if table is not None:
            said = {"analysis_seed" if c == "seed" else c: str(table[c].iloc[0]) for c in table}
            found |= {c: said[c] for c in ("weights", *PROTOCOL) if c in said and c not in found}
    return found


def _ap(table: pd.DataFrame) -> dict[str, object]:
    """AP of a table with a row a generator; rows of no images are means over generators."""
    single = table[table["images"].notna()]
    overall = table[table["images"].isna()].set_index("generator")
    unseen = single[~single["seen"]]
    found: dict[str, object] = {"generators": ", ".join(sorted(unseen["generator"]))}
    parts = {"seen": single[single["seen"]], "unseen": unseen}
    for name, part in parts.items():
        if len(part):
            found[f"{name}_ap"] = float(part["ap"].mean())
            if len(part) == 1:
                found |= {f"{name}_ap{end}": float(part[f"ap{end}"].iloc[0]) for end in ENDS}
    if unseen["ap"].notna().any():
        worst = unseen.iloc[int(np.nanargmin(unseen["ap"].to_numpy(float)))]
        found["worst_generator"] = str(worst["generator"])
        found |= {f"worst_ap{end}": float(worst[f"ap{end}"]) for end in ENDS}
    for name, where in (("seen", "seen"), ("unseen", "unseen"), ("worst", "unseen_worst")):
        if WHERE[where] in overall.index:
            row = overall[overall.index == WHERE[where]]
            found |= {f"{name}_ap{end}": float(row[f"ap{end}"].iloc[0]) for end in ENDS}
    return found


def _table(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    needed = {
        "detection": ("generator", "seen", "images", "ap", "ap_low", "ap_high"),
        "ablation": ("generator", "seen", "images", "ap", "ap_low", "ap_high", "ap_ablated"),
        "ablation_summary": ("where", "ap_drop", "ap_drop_low", "ap_drop_high"),
        "conditional_share": ("generator", "seen", "k", "share"),
    }[path.stem]
    table = checked(path, needed, ["share_separating"])
    if "k" in needed and not np.isfinite(table["k"]).all():
        raise ValueError(f"{path}: k is missing; the file is damaged")
    if "checkpoint" in table and table["checkpoint"].nunique() > 1:
        raise ValueError(
            f"{path}: is of several checkpoints; analyse one training into its own folder"
        )
    return table
