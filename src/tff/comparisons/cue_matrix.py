"""All cues of a sweep on one page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from tff.plots.scatter import matrix_plot
from tff.report.page import collect_versions, write
from tff.report.terminal import show
from tff.safe_text import read_table
from tff.types import Result

ABOUT = """
Each row is a cue that was taken from the test images, each column a generator. The first figure
shows by how much average precision (AP) falls without the cue; gray numbers have an interval that
holds zero. The second shows which part of the top channels tell generated from real images worse
without the cue (DeLong's test, corrected), the third which part changes its responses by the
paper's median test.

A cue is never taken away alone: blurring takes high frequencies too, and a picture without color is
another picture in other ways. Rows are to be read beside each other, not one by one.
"""
KEYS = ["weights", "cue", "ablation", "generator"]


class CueMatrix(Callback):
    """At the end of `analyze.py -m ablation=...`, sets the reports of all jobs side by side."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write SWEEP/report, if at least two cues were tried."""
        folder = Path(config.hydra.sweep.dir)
        result = cue_matrix(sorted(folder.glob("*/report")))
        if result is None:
            return
        overrides = OmegaConf.to_container(config.hydra.overrides.task)
        page = write(
            {"cue_matrix": result},
            folder / "report",
            {"sweep": overrides, "versions": collect_versions()},
        )
        show({"cue_matrix": result}, page)


def cue_matrix(reports: Iterable[Path]) -> Result | None:
    """The cues by generators that the tables of these reports tell of; None of under two cues.

    Args:
        reports: folders that `report.page.write` has made; those without an ablation are passed
            over.
    """
    drops, shares = [], []
    for report in reports:
        if (path := report / "tables" / "ablation.csv").exists():
            drops.append(read_table(path, KEYS))
        if (path := report / "tables" / "conditional_share.csv").exists():
            shares.append(read_table(path, KEYS))
    if not drops:
        return None
    table = pd.concat(drops, ignore_index=True)
    if shares:
        share = pd.concat(shares, ignore_index=True)
        columns = [c for c in map(str, share) if c.startswith("share")]
        table = table.merge(share.drop_duplicates(KEYS)[KEYS + columns], on=KEYS, how="left")
    table = table.drop_duplicates(KEYS)
    if table["ablation"].nunique() < 2:
        return None
    result = Result("Which cue does the detector need?", ABOUT)
    shown = [c for c in map(str, table) if c.startswith(("ap_drop", "share", "median_drop"))]
    rest = [c for c in table if c not in [*KEYS, *shown]]
    result.tables = {"cue_matrix": table[[*KEYS, *shown, *rest]]}
    for weights, part in table.groupby("weights", sort=False):
        _tell(result, str(weights), part, table["weights"].nunique() > 1)
    return result


def _tell(result: Result, weights: str, table: pd.DataFrame, several: bool) -> None:
    """Findings and figures of one detector."""
    order = list(table.sort_values("seen", ascending=False, kind="stable")["generator"].unique())
    # Two strengths of one cue are two rows.
    strengths = table.groupby("cue")["ablation"].transform("nunique")
    table = table.assign(row=table["cue"].where(strengths == 1, table["ablation"]))

    def square(column: str) -> pd.DataFrame:
        return table.pivot(index="row", columns="generator", values=column).reindex(columns=order)

    marked = {name: f"{name} (seen)" for name in table.loc[table["seen"], "generator"]}
    drop = square("ap_drop")
    ranked = drop.mean(axis=1).sort_values(ascending=False)
    drop = drop.loc[ranked.index]
    sure = (square("ap_drop_low") > 0) | (square("ap_drop_high") < 0)
    told = ", ".join(f"{cue} ({value:.3f})" for cue, value in ranked.dropna().head(3).items())
    name = f"{weights}: m" if several else "M"
    if told:
        result.findings.append(f"{name}ean drop of AP over generators is largest without {told}.")
    end = f"_{weights}" if several else ""
    result.scalars |= {f"ap_drop_{cue}{end}": float(value) for cue, value in ranked.items()}
    figures: dict[str, tuple[str, pd.DataFrame | None]] = {
        "ap_drop": ("AP lost without the cue", sure.loc[drop.index])
    }
    if "share_separating" in table:
        figures["share_separating"] = ("share of top channels that separate worse", None)
        figures["share"] = ("share of top channels whose responses change (median test)", None)
    for column, (label, certain) in figures.items():
        values = square(column).loc[drop.index]
        largest = float(np.nan_to_num(values.abs().to_numpy(float)).max())
        limit = max(0.1, largest) if column == "ap_drop" else 1.0
        result.figures[f"cue_matrix_{column}{end}"] = matrix_plot(
            values.rename(columns=marked), label, limit, certain
        )
        result.captions[f"cue_matrix_{column}{end}"] = f"{label[0].upper()}{label[1:]}. {weights}"
