"""Figures of numbers that were measured several times, as with several seeds."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from tff.plots.axes import bands, finite, legend, no_data, one_axes, rows
from tff.plots.style import HUES, INK, PAPER, styled


@styled
def repeats(table: pd.DataFrame, group: str, value: str, label: str) -> Figure:
    """A row a group: a dot for each time, the mean, and a line of one standard deviation (n - 1).

    Args:
        table: a row a time; groups stand in the order of their first row, from the top.
        group: column of names.
        value: column of numbers; NaN is not drawn.
        label: of the numbers.
    """
    if not len(finite(table.get(value, []))):
        return no_data()
    names = list(dict.fromkeys(table[group]))
    figure, ax = one_axes(1.1 + 0.3 * len(names))
    for i, name in enumerate(names):
        values = finite(table.loc[table[group] == name, value])
        if not len(values):
            continue
        mean = values.mean()
        if len(values) > 1:
            spread = values.std(ddof=1)
            ax.hlines(i, mean - spread, mean + spread, color=INK, linewidth=1.2, zorder=2)
        ax.plot([mean], [i], marker="|", color=INK, markersize=14, markeredgewidth=2, zorder=3)
        ax.plot(values, [i] * len(values), "o", color=HUES[0], alpha=0.75, markersize=6.5,
                markeredgecolor=PAPER, markeredgewidth=0.7, zorder=4)  # fmt: skip
    ax.plot([], [], "o", color=HUES[0], label="one training")
    ax.plot([], [], color=INK, marker="|", markersize=12, markeredgewidth=2, linewidth=1.2,
            label="mean and standard deviation")  # fmt: skip
    rows(ax, names, label)
    bands(ax, len(names))
    legend(ax, figure)
    return figure
