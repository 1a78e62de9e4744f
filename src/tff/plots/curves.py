"""Figures of a number against another one, a line for each of several kinds."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from tff.plots.axes import legend, no_data, one_axes
from tff.plots.style import HUES, styled


@styled
def falling(
    table: pd.DataFrame,
    x: str,
    hue: str,
    y: str,
    xlabel: str,
    ylabel: str,
    words: Mapping[str, str] | None = None,
) -> Figure:
    """Lines of `y` with bands from `y`_low to `y`_high, against the fraction `x` in percent.

    The axis is linear up to the smallest share above 0, and logarithmic from there on, since the
    first few channels are the ones of interest. A point at 0 is where all lines begin.

    Args:
        words: of the values of `hue`, in the wanted order.
    """
    if table.empty:
        return no_data()
    figure, ax = one_axes(3.4)
    kinds = [k for k in (words or {}) if k in set(table[hue])] or list(table[hue].unique())
    for i, kind in enumerate(kinds):
        part = table[table[hue] == kind].sort_values(x)
        share, color = 100 * part[x], HUES[i % len(HUES)]
        ax.fill_between(share, part[f"{y}_low"], part[f"{y}_high"], color=color, alpha=0.12, lw=0)
        label = (words or {}).get(kind, str(kind))
        ax.plot(share, part[y], color=color, marker="oDs^vP"[i % 6], markersize=4, label=label)
    above = 100 * table[x][table[x] > 0]
    if len(above):
        ax.set_xscale("symlog", linthresh=float(above.min()), linscale=0.4)
        ticks = sorted({0.0, *above.round(3).unique().tolist()})
        ax.set_xticks(ticks, [f"{float(f'{tick:.2g}'):g}" for tick in ticks])
        ax.minorticks_off()
    ax.grid(True, axis="y")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    legend(ax, figure)
    return figure
