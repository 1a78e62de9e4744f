"""Tables that compare two rankings of channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tff.statistics.rank_agreement import (
    Floats,
    Ints,
    means_within,
    overlap_by_chance,
    overlap_within,
    spearman,
)

_POINTS = 160  # of a curve: more than can be told apart
#: Of the table by k.
COLUMNS = (
    "k", "overlap", "share", "by_chance", "p_by_chance", "within_layers", "p_within_layers",
)  # fmt: skip


def by_k(ks: Sequence[int], counts: Ints, first: Ints, second: Ints, groups: Ints) -> pd.DataFrame:
    """A row a k, `COLUMNS`: how many channels are in both tops, and what chance gives.

    Args:
        ks: for which.
        counts: (n,) overlap at k = 1 ... n.
        first: (n,) ranking.
        second: likewise.
        groups: (n,) number of each channel's layer.
    """
    rows = []
    for k in ks:
        found = int(counts[k - 1])
        chance = overlap_by_chance(found, k, len(counts))
        within = overlap_within(found, k, first, second, groups)
        rows.append((k, found, found / k, *chance, *within))
    return pd.DataFrame(rows, columns=COLUMNS)


def curves(counts: Ints, first: Ints, second: Ints, groups: Ints) -> pd.DataFrame:
    """Shares of the top k at many k, evenly spread on a logarithmic axis; arguments as above."""
    n = len(counts)
    k = np.unique(np.geomspace(1, n, _POINTS).round().astype(np.int64))
    return pd.DataFrame(
        {
            "k": k,
            "share": counts[k - 1] / k,
            "share_by_chance": k / n,
            "share_within_layers": means_within(k, first, second, groups) / k,
        }
    )


def by_layer(
    layers: Sequence[str], groups: Ints, ours: Floats, theirs: Floats, top: Ints, other: Ints
) -> pd.DataFrame:
    """A row a layer: rank correlation, and how many of the top k of each ranking it holds."""
    rows: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        at = np.flatnonzero(groups == i)
        in_ours, in_other = np.isin(at, top), np.isin(at, other)
        rows.append(
            {
                "layer": layer,
                "channels": len(at),
                "spearman": spearman(ours[at], theirs[at]),
                "top": int(in_ours.sum()),
                "top_other": int(in_other.sum()),
                "overlap": int((in_ours & in_other).sum()),
                "by_chance": float(in_ours.sum() * in_other.sum() / len(at)),
                "omega": float(ours[at].sum()),
                "omega_other": float(theirs[at].sum()),
            }
        )
    return pd.DataFrame(rows)


def of_top(
    channels: pd.DataFrame, top: Ints, ours: Floats, theirs: Floats, first: Ints, second: Ints
) -> pd.DataFrame:
    """The channels in the top k of either, with their place in both (1 is best)."""
    table = channels.iloc[top].assign(
        rank=np.argsort(first)[top] + 1,
        rank_other=np.argsort(second)[top] + 1,
        omega=ours[top],
        omega_other=theirs[top],
    )
    return table.sort_values("rank", ignore_index=True)
