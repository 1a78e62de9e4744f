"""Scatter plots, repeated trainings, matrices."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tff.plots.style import (
    HUES,
    INK,
    MUTED,
    PAPER,
    add_legend,
    finite_values,
    name_rows,
    no_data,
    shade_rows,
    shorten,
    single_axes,
    styled,
)

_NAMED = 12  # groups that color and form can tell apart, and a legend can hold


@styled
def scatter_plot(
    table: pd.DataFrame, x: str, y: str, group: str, xlabel: str, ylabel: str
) -> Figure:
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
    figure, ax = single_axes(3.8)
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
        numbers = finite_values(values)
        if np.ptp(numbers) == 0:  # else the axis would span rounding errors
            setter(numbers[0] - 0.05, numbers[0] + 0.05)
    add_legend(ax, figure)
    return figure


@styled
def repeated_trainings(table: pd.DataFrame, group: str, value: str, label: str) -> Figure:
    """A row a group: a dot for each time, the mean, and a line of one standard deviation (n - 1).

    Args:
        table: a row a time; groups stand in the order of their first row, from the top.
        group: column of names.
        value: column of numbers; NaN is not drawn.
        label: of the numbers.
    """
    if not len(finite_values(table.get(value, []))):
        return no_data()
    names = list(dict.fromkeys(table[group]))
    figure, ax = single_axes(1.1 + 0.3 * len(names))
    for i, name in enumerate(names):
        values = finite_values(table.loc[table[group] == name, value])
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
    name_rows(ax, names, label)
    shade_rows(ax, len(names))
    add_legend(ax, figure)
    return figure


#: From the control's color through white to that of the intervention.
SCALE = LinearSegmentedColormap.from_list("drop", [HUES[0], "#ffffff", HUES[1]])


@styled
def matrix_plot(
    values: pd.DataFrame, label: str, limit: float, sure: pd.DataFrame | None = None
) -> Figure:
    """A cell for each row and column of a table, with its number in it.

    Args:
        values: rows are named by the index; NaN leaves a cell empty.
        label: of the number, below the figure.
        limit: value of the strongest color; its negative has the opposite one.
        sure: Boolean, of the same shape; numbers that are not sure are gray and small.
    """
    if values.empty:
        return no_data()
    rows, columns = values.shape
    figure, ax = single_axes(1.5 + 0.3 * rows)
    ax.imshow(values.to_numpy(float), cmap=SCALE, vmin=-limit, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(values.to_numpy(float)):
        if np.isfinite(value):
            told = sure is None or bool(sure.iat[i, j])
            size, color = (8.5, "#1f2934") if told else (7, "#66717f")  # on light cells always
            number = f"{round(value, 2) + 0.0:.2f}"  # no -0.00
            ax.text(j, i, number, ha="center", va="center", fontsize=size, color=color)
    ax.set_yticks(range(rows), [shorten(name, 26) for name in values.index])
    ax.set_xticks(range(columns), [shorten(name, 18) for name in values.columns], rotation=35,
                  ha="right", rotation_mode="anchor")  # fmt: skip
    ax.tick_params(length=0, labelcolor=INK)
    ax.grid(False)
    ax.set_xticks(np.arange(columns - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
    ax.grid(True, which="minor", axis="both", color=PAPER, linewidth=2)
    ax.tick_params(which="minor", length=0)
    ax.set_xlabel(label, color=MUTED)
    return figure
