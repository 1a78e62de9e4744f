"""Scatter plots, spread over repeated trainings, matrices."""

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
    add_dots,
    finite_values,
    name_rows,
    no_data,
    shorten,
    single_axes,
    styled,
)

_NAMED = 12  # groups that color and shape can tell apart, and a legend can hold


@styled
def scatter_plot(
    table: pd.DataFrame, x: str, y: str, group: str, xlabel: str, ylabel: str
) -> Figure:
    """One dot per row, with shape and color by group; bars where `y` has bounds.

    Args:
        table: values in `x` and `y`, optionally bounds in `y`_low and `y`_high; rows with a
            missing value are not drawn.
        group: column of names; groups after the twelfth are gray crosses.
    """
    known = table.dropna(subset=[x, y]) if {x, y} <= set(table) else table.head(0)
    if known.empty:
        return no_data()
    figure, ax = single_axes(3.8)
    names = list(dict.fromkeys(known[group]))
    looks = list(product("oD", HUES))
    for i, name in enumerate(names):
        part = known[known[group] == name]
        named = i < _NAMED
        shape, color = looks[i] if named else ("X", MUTED)
        if {f"{y}_low", f"{y}_high"} <= set(known):
            ax.vlines(part[x], part[f"{y}_low"], part[f"{y}_high"], color=color, linewidth=1.2,
                      alpha=0.5)  # fmt: skip
        label = str(name) if named else "others" if i == _NAMED else None
        add_dots(ax, part[x], part[y], color, shape, markersize=6.5, zorder=3, label=label)
    ax.grid(True, axis="y")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    heights = known[[c for c in (y, f"{y}_low", f"{y}_high") if c in known]]
    for values, setter in ((known[x], ax.set_xlim), (heights, ax.set_ylim)):
        numbers = finite_values(values)
        if np.ptp(numbers) == 0:  # else the axis would span rounding errors
            setter(numbers[0] - 0.05, numbers[0] + 0.05)
    return figure


@styled
def repeated_trainings(table: pd.DataFrame, group: str, value: str, label: str) -> Figure:
    """One row per group: a dot per training, the mean, and one standard deviation (n - 1).

    Args:
        table: one row per training; groups keep the order of their first rows, from the top.
        value: column of values; NaN is not drawn.
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
        add_dots(ax, values, [i] * len(values), HUES[0], alpha=0.75, markersize=6.5, zorder=4)
    ax.plot([], [], "o", color=HUES[0], label="one training")
    ax.plot([], [], color=INK, marker="|", markersize=12, markeredgewidth=2, linewidth=1.2,
            label="mean and standard deviation")  # fmt: skip
    name_rows(ax, names, label, shaded=True)
    return figure


#: From blue through white to orange: unchanged and intervention, see `style.HUES`.
SCALE = LinearSegmentedColormap.from_list("drop", [HUES[0], "#ffffff", HUES[1]])


@styled
def matrix_plot(
    values: pd.DataFrame, label: str, limit: float, significant: pd.DataFrame | None = None
) -> Figure:
    """Colored cells with their numbers.

    Args:
        values: named by index and columns; NaN leaves a cell empty.
        label: label of the numbers, below the figure.
        limit: value of the strongest color; its negative has the opposite color.
        significant: bool, of the same shape; other numbers are small and gray.
    """
    if values.empty:
        return no_data()
    rows, columns = values.shape
    figure, ax = single_axes(1.5 + 0.3 * rows)
    ax.imshow(values.to_numpy(float), cmap=SCALE, vmin=-limit, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(values.to_numpy(float)):
        if np.isfinite(value):
            strong = significant is None or bool(significant.iat[i, j])
            # Not colors of the style, which a dark page would exchange: cells stay light.
            size, color = (8.5, "#1f2934") if strong else (7, "#66717f")
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
