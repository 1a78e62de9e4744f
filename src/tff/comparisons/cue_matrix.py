"""Cue matrix: all cues of a sweep by all generators."""

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
from tff.report.results import find_trained_images, read_results
from tff.report.terminal import show
from tff.types import Result

ABOUT = """
Each row is a cue that was removed from the test images, each column a generator. The first figure
shows how much average precision (AP) falls without the cue, or rises where the number is negative;
numbers whose interval includes zero are gray. Each number is tested by itself: of those that are
truly zero, about one in 20 is not gray. The next figures show the shares of the top channels that
separate generated from real images worse, better or the other way round without the cue (DeLong's
test, corrected), the last one the share whose responses change by the paper's median test.

No cue is ever removed alone: blurring removes high frequencies too, and an image without color
differs in other ways as well. Compare rows with each other rather than reading one by itself.
"""
_NAMED = 5  # cues in the finding
KEYS = ["weights", "cue", "ablation", "generator"]
_SHARES = {
    "share_losing": "share of top channels that separate worse",
    "share_gaining": "share of top channels that separate better",
    "share_turning": "share of top channels that separate the other way round",
    "share": "share of top channels whose responses change (median test)",
}
_DROPS = dict.fromkeys(KEYS, str) | {
    "seen": bool, "ap_drop": float, "ap_drop_low": float, "ap_drop_high": float
}  # fmt: skip


class CueMatrix(Callback):
    """At the end of `analyze.py -m ablation=...`, compares the reports of all jobs."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write SWEEP/report if at least two cues were removed."""
        folder = Path(config.hydra.sweep.dir)
        result = compare_cues(sorted(folder.glob("*/report")))
        if result is None:
            return
        overrides = OmegaConf.to_container(config.hydra.overrides.task)
        context = {"sweep": overrides, "versions": collect_versions()}
        page = write({"cue_matrix": result}, folder / "report", context)
        show({"cue_matrix": result}, page)


def compare_cues(reports: Iterable[Path]) -> Result | None:
    """Table `cue_matrix` and figures of cues by generators; None for fewer than two cues.

    Args:
        reports: folders of reports; those without an ablation are skipped, and those that cannot
            be read are named in a warning.
    """
    drops, shares, problems = [], [], []
    for report in reports:
        try:
            results = read_results(report)
            drop = results.table("ablation", _DROPS)
            share = results.table(
                "conditional_share", dict.fromkeys(KEYS, str), dict.fromkeys(_SHARES, float)
            )
        except ValueError as error:
            problems.append(f"A job is skipped: {error}.")
            continue
        drops += [] if drop is None else [drop]
        shares += [] if share is None else [share]
    if not drops:
        return None
    table = pd.concat(drops, ignore_index=True)
    if shares:
        share = pd.concat(shares, ignore_index=True)
        columns = [c for c in share if str(c).startswith("share")]
        table = table.merge(share.drop_duplicates(KEYS)[KEYS + columns], on=KEYS, how="left")
    table = table.drop_duplicates(KEYS)
    if table["ablation"].nunique() < 2:
        return None
    result = Result("Which cue does the detector need?", ABOUT, warnings=problems)
    shown = [c for c in table if str(c).startswith(("ap_drop", "share", "median_drop"))]
    rest = [c for c in table if c not in [*KEYS, *shown]]
    result.tables = {"cue_matrix": table[[*KEYS, *shown, *rest]]}
    result.alarms = find_trained_images(result.tables)
    for weights, part in table.groupby("weights", sort=False):
        _report_detector(result, str(weights), part, table["weights"].nunique() > 1)
    return result


def _report_detector(result: Result, weights: str, table: pd.DataFrame, several: bool) -> None:
    """Findings, scalars and figures of one detector, named by its weights if there are several."""
    order = table.sort_values("seen", ascending=False, kind="stable")["generator"].unique()
    # Two strengths of one cue are two rows.
    strengths = table.groupby("cue")["ablation"].transform("nunique")
    table = table.assign(row=table["cue"].where(strengths == 1, table["ablation"]))

    def pivot(column: str) -> pd.DataFrame:
        return table.pivot(index="row", columns="generator", values=column).reindex(columns=order)

    labels = {name: f"{name} (seen)" for name in table.loc[table["seen"], "generator"]}
    drop = pivot("ap_drop")
    ranked = drop.mean(axis=1).sort_values(ascending=False)
    falls, rises = pivot("ap_drop_low") > 0, pivot("ap_drop_high") < 0
    known = drop.notna()
    counts = {"falls": falls.sum(axis=1), "rises": rises.sum(axis=1), "known": known.sum(axis=1)}
    changes = [
        f"{row.change:+.3f} without {row.Index} ({_count(row.falls, row.rises)} of {row.known})"
        for row in pd.DataFrame({"change": -ranked.dropna()} | counts)
        .sort_values("change", kind="stable")
        .dropna()
        .head(_NAMED)
        .itertuples()
    ]
    if changes:
        result.findings.append(
            f"{f'{weights}: c' if several else 'C'}hange of AP, mean over generators: "
            f"{', '.join(changes)}. Of {known.sum(axis=None)} pairs of cue and generator AP falls "
            f"significantly in {falls.sum(axis=None)} and rises in {rises.sum(axis=None)}; of "
            "pairs without any change, one in 20 would seem to."
        )
    end = f"_{weights}" if several else ""
    result.scalars |= {f"ap_drop_{cue}{end}": float(value) for cue, value in ranked.items()}
    titles = {"ap_drop": "AP lost without the cue"}
    titles |= {column: title for column, title in _SHARES.items() if column in table}
    for column, title in titles.items():
        values, certain, limit = pivot(column).loc[ranked.index], None, 1.0
        if column == "ap_drop":
            certain = (falls | rises).loc[ranked.index]
            limit = max(0.1, float(np.nan_to_num(values.abs().to_numpy(float)).max()))
        figure = f"cue_matrix_{column}{end}"
        result.figures[figure] = matrix_plot(values.rename(columns=labels), title, limit, certain)
        result.captions[figure] = f"{title[0].upper()}{title[1:]}. {weights}"


def _count(falls: Any, rises: Any) -> str:
    """Such as `significant on none`, `falls significantly on 2`."""
    counts = {"falls": falls, "rises": rises}
    words = [f"{verb} significantly on {n}" for verb, n in counts.items() if n]
    return " and ".join(words) or "significant on none"
