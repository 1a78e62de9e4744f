"""Figures that set one number of each generator or condition beside the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tff.plots.axes import (
    bands,
    bars,
    finite,
    legend,
    no_data,
    one_axes,
    reference_line,
    rows,
    short,
)
from tff.plots.style import HUES, PAPER, styled


@styled
def grouped(
    table: pd.DataFrame,
    x: str,
    hue: str,
    y: str,
    low: str | None,
    high: str | None,
    ylabel: str,
    reference: float | None = None,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """One row for each value of `x`, in it a dot with its interval for each value of `hue`.

    Rows whose column `seen` is true come first and are marked; `labels` gives the values of `hue`
    in the wanted order, with their words for the legend.
    """
    if table.empty:
        return no_data()
    words = labels or {}
    seen = set(table[x][table["seen"].eq(True)]) if "seen" in table else set()
    names = sorted(table[x].unique(), key=lambda name: name not in seen)  # stable
    present = set(table[hue])
    kinds = [kind for kind in dict.fromkeys([*words, *table[hue]]) if kind in present]
    figure, ax = one_axes(1.0 + len(names) * (0.16 + 0.13 * len(kinds)))
    for i, kind in enumerate(kinds):
        part, color = table[table[hue] == kind], HUES[i % len(HUES)]
        where = part[x].map(names.index) + (i - (len(kinds) - 1) / 2) * 0.72 / len(kinds)
        if low and high:
            ax.hlines(where, part[low], part[high], color=color, linewidth=1.6, alpha=0.75)
        ax.plot(
            part[y],
            where,
            "oDs^vP"[i % 6],
            color=color,
            markersize=6,
            markeredgewidth=0.7,
            markeredgecolor=PAPER,
            label=words.get(kind, str(kind)),
            zorder=3,
        )
    rows(ax, [short(name, 24) + " (seen)" * (name in seen) for name in names], ylabel)
    bands(ax, len(names))
    if reference is not None:
        reference_line(ax, reference)
    legend(ax, figure)
    return figure


@styled
def shares(table: pd.DataFrame, alpha: float = 0.05) -> Figure:
    """Bars of `share`, a fraction of `k` channels, by `generator`; chance alone gives `alpha`.

    Raises:
        ValueError: a share is above 1, as a percentage would be.
    """
    if table.empty:
        return no_data()
    percent = 100 * table["share"].to_numpy(float)
    if finite(percent).max(initial=0) > 100:
        raise ValueError("a share must lie between 0 and 1; this looks like a percentage")
    notes = [
        f"{share:.0f} % of {k}" if np.isfinite(share) else "no value"
        for share, k in zip(percent, table["k"], strict=True)
    ]
    figure = bars(list(table["generator"]), percent, "channels that respond, in percent", notes)
    ax = figure.axes[0]
    ax.set(xlim=(0, 120), xticks=range(0, 101, 20))
    reference_line(ax, 100 * alpha, f"by chance alone: {100 * alpha:g} %")
    return figure
