"""Figures of how far two rankings of channels agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tff.plots.axes import finite, legend, no_data, one_axes, reference_line, rows
from tff.plots.channels import blocks as blocks_of
from tff.plots.style import FAINT, HUES, MUTED, styled

_STYLES: Sequence[tuple[str, object, float]] = (
    (HUES[0], "-", 2.2),
    (HUES[2], (0, (4, 3)), 1.4),
    (HUES[1], (0, (1.5, 1.5)), 1.6),
)
_ROWS_NAMED = 24


@styled
def overlap(curves: pd.DataFrame, words: Mapping[str, str], k: int) -> Figure:
    """Share of the top k that two rankings have in common, against k.

    Args:
        curves: column `k`, ascending, and a column of shares in [0, 1] for each of `words`.
        words: up to three columns -> their words in the legend; what was found comes first.
        k: is marked.
    """
    if curves.empty:
        return no_data()
    figure, ax = one_axes(3.4)
    for (column, word), (color, line, width) in zip(words.items(), _STYLES, strict=False):
        ax.plot(
            curves["k"],
            curves[column],
            color=color,
            linestyle=line,
            linewidth=width,
            label=word,
            marker="o" if len(curves) == 1 else "",
        )
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(True, axis="y")
    ax.set(xlabel="k, the number of top channels", ylabel="in both", ylim=(0, 1.1))
    reference_line(ax, k, f"k = {k}")
    legend(ax, figure)
    return figure


@styled
def layers(table: pd.DataFrame) -> Figure:
    """A bar of `spearman` for each `layer`, in the given order; many are named by their blocks."""
    if table.empty:
        return no_data()
    names, values = [str(name) for name in table["layer"]], table["spearman"].to_numpy(float)
    if len(names) <= _ROWS_NAMED:
        figure, ax = one_axes(0.9 + 0.22 * len(names))
        rows(ax, names, "")
    else:
        figure, ax = one_axes(0.9 + 0.12 * len(names))
        block, start = blocks_of(names), 0
        middles, labels = [], []
        for i, (label, members) in enumerate(groupby(names, key=block.__getitem__)):
            count = len(list(members))
            if i % 2 == 0:
                ax.axhspan(start - 0.5, start + count - 0.5, color=FAINT, alpha=0.4, zorder=0)
            middles.append(start + (count - 1) / 2)
            labels.append(label)
            start += count
        rows(ax, labels, "")
        ax.set_yticks(middles, labels)
        ax.set_ylim(len(names) - 0.5, -0.5)
    ax.barh(range(len(names)), np.nan_to_num(values), height=0.7, color=HUES[0])
    ax.plot(np.zeros((~np.isfinite(values)).sum()), np.flatnonzero(~np.isfinite(values)), "x",
            color=HUES[1], markersize=4)  # fmt: skip  # no value: all omegas are equal
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.set(xlim=(min(-0.05, 1.1 * finite(values).min(initial=0)), 1.02))
    ax.set_xlabel("rank correlation (Spearman) of the channels of a layer")
    return figure
