"""What a sweep tells: sentences and figures for somebody who has to choose a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tff.analyses.sweep_tables import LEAST, SHARES, compared
from tff.plots.scatter import repeats, scatter
from tff.types import Result

WORDS = {
    "share_separating": "share of top channels that separate worse without the cue",
    "conditional_share": "share of top channels whose responses change (median test)",
}


def tell_groups(result: Result, table: pd.DataFrame, groups: pd.DataFrame) -> None:
    """Which group detects unseen generators best, by how much, and its checkpoint to take."""
    known = groups.dropna(subset="unseen_ap_mean")
    if known.empty:
        return
    best, done = known.iloc[0], compared(table)
    result.findings.append(
        ("Best" if len(known) > 1 else "The only group")
        + f" in mean AP on unseen generators: {_described(best)}."
    )
    if len(known) > 1:
        second = known.iloc[1]
        gap = float(best["unseen_ap_mean"]) - float(second["unseen_ap_mean"])
        spread = np.sqrt(
            (float(best["unseen_ap_sd"]) ** 2 + float(second["unseen_ap_sd"]) ** 2) / 2
        )
        verdict = (
            "how much of that is the seed is unknown, since not both have two seeds or more"
            if np.isnan(spread)
            else f"that is more than the spread over seeds (standard deviation {spread:.3f})"
            if gap > spread
            else f"that is no more than the spread over seeds (standard deviation {spread:.3f}), "
            "so another seed may turn the order"
        )
        result.findings.append(
            f"Next is {_described(second)}. The difference is {gap:.3f}; {verdict}."
        )
    mine = done[(done["group"] == best["group"]) & (done["checkpoint"] != "")]
    if len(mine):
        # By validation: the test images have already chosen the group.
        chosen = mine.sort_values("objective", ascending=False, kind="stable").iloc[0]
        by = "its best in validation" if np.isfinite(chosen["objective"]) else "one of its"
        result.findings.append(f"Checkpoint of this group ({by}): {chosen['checkpoint']}")
    order = {group: i for i, group in enumerate(groups["group"])}
    shown = done.sort_values("group", key=lambda g: g.map(order), kind="stable")
    result.figures["sweep_ap"] = repeats(
        shown, "group", "unseen_ap", "average precision, mean over unseen generators"
    )
    result.captions["sweep_ap"] = "AP on unseen generators: a dot a training, best group first."
    result.scalars |= {"unseen_ap_best_group": float(best["unseen_ap_mean"])}


def tell_association(result: Result, table: pd.DataFrame, found: pd.DataFrame) -> None:
    """Whether detectors with more conditional channels detect unseen generators better."""
    done = compared(table)
    for share in SHARES:
        part = found[found["share"] == share].set_index("over")
        jobs, means = (part.loc[[over]].iloc[0] for over in ("jobs", "group means"))
        if jobs["n"] == 0:
            continue
        if jobs["n"] < LEAST:
            result.warnings.append(
                f"AP and {WORDS[share]}: only {jobs['n']} trainings have both, too few for a "
                f"correlation (at least {LEAST} are needed)."
            )
        elif np.isfinite(jobs["spearman"]):
            also = f"; over {means['n']} groups (means) {_interval(means)}"
            result.findings.append(
                f"AP on unseen generators against the {WORDS[share]}: rank correlation (Spearman) "
                f"{_interval(jobs)} over {jobs['n']} trainings"
                f"{also if np.isfinite(means['spearman']) else ''}."
            )
            result.scalars[f"spearman_{share}"] = float(jobs["spearman"])
        figure = f"sweep_{share}"
        result.figures[figure] = scatter(
            done, share, "unseen_ap", "group", WORDS[share], "AP, unseen generators"
        )
        result.captions[figure] = (
            "A dot a training. Bars are 95 % intervals of its AP over images, where the report "
            "tells them; they do not hold the spread over seeds."
        )
    if done[list(SHARES)].isna().all(axis=None) and len(done):
        result.warnings.append(
            "No report has conditional shares: analyse the trainings with `median_test` as well."
        )


def names(runs: Sequence[str], most: int = 6) -> str:
    """The first few, and how many more."""
    rest = f" and {len(runs) - most} more" if len(runs) > most else ""
    return ", ".join(runs[:most]) + rest


def _described(group: Mapping[Any, Any] | pd.Series[Any]) -> str:
    count, seeds = int(group["compared"]), int(group["seeds"])
    if count == 1:
        return f"{group['group']} with {group['unseen_ap_mean']:.3f} (one training)"
    return (
        f"{group['group']} with {group['unseen_ap_mean']:.3f} ({count} trainings, {seeds} seeds, "
        f"{group['unseen_ap_min']:.3f} to {group['unseen_ap_max']:.3f}, standard deviation "
        f"{group['unseen_ap_sd']:.3f})"
    )


def _interval(row: Mapping[Any, Any] | pd.Series[Any]) -> str:
    if np.isnan(row["spearman_low"]):
        return f"{row['spearman']:.2f} (a perfect order, of which resampling gives no interval)"
    return f"{row['spearman']:.2f} ({row['spearman_low']:.2f} to {row['spearman_high']:.2f})"
