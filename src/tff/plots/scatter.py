"""Figures of two numbers of the same things, against each other."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tff.plots.axes import finite, legend, no_data, one_axes
from tff.plots.style import HUES, MUTED, PAPER, styled

_NAMED = 12  # groups that color and form can tell apart, and a legend can hold


@styled
def scatter(table: pd.DataFrame, x: str, y: str, group: str, xlabel: str, ylabel: str) -> Figure:
    """A dot a row, its form and color those of its group; bars where `y` has bounds.

    Args:
        table: numbers in `x` and `y`, bounds in `y`_low and `y`_high if there are such; rows
            without a number are not drawn.
        x: column.
        y: column.
        group: column of names; of more than twelve, the later ones are gray crosses.
        xlabel: of `x`.
        ylabel: of `y`.
    """
    known = table.dropna(subset=[x, y]) if {x, y} <= set(table) else table.head(0)
    if known.empty:
        return no_data()
    figure, ax = one_axes(3.8)
    names = list(dict.fromkeys(known[group]))
    looks = [(color, form) for form, color in product("oD", HUES)]
    rest = "others"
    for i, name in enumerate(names):
        part = known[known[group] == name]
        named = i < _NAMED
        color, form = looks[i] if named else (MUTED, "X")
        if {f"{y}_low", f"{y}_high"} <= set(known):
            ax.vlines(part[x], part[f"{y}_low"], part[f"{y}_high"], color=color, linewidth=1.2,
                      alpha=0.5)  # fmt: skip
        ax.plot(part[x], part[y], linestyle="", marker=form, color=color, markersize=6.5,
                markeredgecolor=PAPER, markeredgewidth=0.7, zorder=3,
                label=str(name) if named else rest if i == _NAMED else None)  # fmt: skip
    ax.grid(True, axis="y")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    heights = known[[c for c in (y, f"{y}_low", f"{y}_high") if c in known]]
    for values, setter in ((known[x], ax.set_xlim), (heights, ax.set_ylim)):
        numbers = finite(values)
        if np.ptp(numbers) == 0:  # else the axis would span rounding errors
            setter(numbers[0] - 0.05, numbers[0] + 0.05)
    legend(ax, figure)
    return figure
