"""Tables of how a ranking and the conditional share change from checkpoint to checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tff.analyses.emergence_steps import Step
from tff.analyses.ranking_agreement import by_k
from tff.statistics.rank_agreement import overlaps, spearman

#: What tells how a checkpoint was analysed; `weights` names the checkpoint and always differs.
PROTOCOL = ("protocol", "crop", "resize", "relevance", "seed")
STABILITY = (
    "compared", "step", "other_step", "k", "overlap", "share", "by_chance", "p_by_chance",
    "within_layers", "p_within_layers", "spearman",
)  # fmt: skip


def top_channels(steps: Sequence[Step], k: int) -> pd.DataFrame:
    """The final top k channels at every step: rank, omega with its interval, `in_top`."""
    final = steps[-1].ranking.head(k)[["layer", "channel", "rank"]]
    rows = []
    for step in steps:
        columns = ["layer", "channel", "rank", "omega", "omega_low", "omega_high", "images"]
        now = step.ranking[[*columns, *(c for c in PROTOCOL if c in step.ranking)]]
        part = final.rename(columns={"rank": "rank_final"}).merge(now, on=["layer", "channel"])
        part.insert(0, "step", step.number)
        part.insert(list(part).index("rank") + 1, "in_top", part["rank"] <= k)
        rows.append(part)
    return pd.concat(rows, ignore_index=True)


def stability(steps: Sequence[Step], k: int) -> pd.DataFrame:
    """Each step beside the next one and beside the final one: overlap at k, chance, Spearman.

    Columns as in `agreement_tables.by_k`, and `spearman` of omega over all channels.
    """
    channels = steps[-1].ranking[["layer", "channel"]].sort_values(["layer", "channel"])
    place = pd.Series(range(len(channels)), pd.MultiIndex.from_frame(channels))
    groups = pd.factorize(channels["layer"])[0].astype(np.int64)
    orders, omegas = [], []
    for step in steps:
        order = place.loc[pd.MultiIndex.from_frame(step.ranking[["layer", "channel"]])].to_numpy()
        orders.append(order.astype(np.int64))
        omegas.append(step.ranking["omega"].to_numpy(float)[np.argsort(order)])
    last = len(steps) - 1
    pairs = [("next", i, i + 1) for i in range(last)] + [("final", i, last) for i in range(last)]
    rows = []
    for compared, i, j in pairs:
        counts = overlaps(orders[i], orders[j])
        row = by_k([k], counts, orders[i], orders[j], groups)
        row = row.assign(
            compared=compared, step=steps[i].number, other_step=steps[j].number,
            spearman=spearman(omegas[i], omegas[j]),
        )  # fmt: skip
        rows.append(row)
    if not rows:
        return pd.DataFrame(columns=STABILITY)
    return pd.concat(rows, ignore_index=True)[list(STABILITY)]


def conditional(steps: Sequence[Step]) -> pd.DataFrame:
    """The conditional shares of every step and generator, as the median test told them."""
    parts = [s.shares.assign(step=s.number) for s in steps if s.shares is not None]
    if not parts:
        return pd.DataFrame(columns=["step", "generator", "share", "images"])
    table = pd.concat(parts, ignore_index=True)
    return table[["step", *(c for c in table if c not in ("step", "weights"))]]


def over_generators(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A row a step: mean of each column over generators, least and largest as bounds."""
    groups = table.groupby("step", sort=True)
    named: dict[str, pd.Series[Any]] = {"n": groups.size()}
    for column in columns:
        named[column] = groups[column].mean()
        named[f"{column}_low"] = groups[column].min()
        named[f"{column}_high"] = groups[column].max()
    return pd.DataFrame(named).reset_index()


def other_options(steps: Sequence[Step]) -> list[str]:
    """A sentence for each option that not all steps were analysed with alike."""
    told = []
    for column in PROTOCOL:
        values: dict[str, list[int]] = {}
        for step in steps:
            ranked = step.ranking
            value = str(ranked[column].iloc[0]) if column in ranked else "not told"
            values.setdefault(value, []).append(step.number)
        if len(values) > 1:
            each = "; ".join(f"{v} at step {', '.join(map(str, s))}" for v, s in values.items())
            told.append(f"The checkpoints were analysed with other options: {column} is {each}.")
    return told
