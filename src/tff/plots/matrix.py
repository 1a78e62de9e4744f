"""Figures of a table of numbers as colored cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tff.plots.axes import no_data, one_axes, short
from tff.plots.style import HUES, INK, MUTED, PAPER, styled

#: From the control's color through white to that of the intervention.
SCALE = LinearSegmentedColormap.from_list("drop", [HUES[0], "#ffffff", HUES[1]])


@styled
def heat_map(
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
    figure, ax = one_axes(1.5 + 0.3 * rows)
    ax.imshow(values.to_numpy(float), cmap=SCALE, vmin=-limit, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(values.to_numpy(float)):
        if np.isfinite(value):
            told = sure is None or bool(sure.iat[i, j])
            size, color = (8.5, "#1f2934") if told else (7, "#66717f")  # on light cells always
            number = f"{round(value, 2) + 0.0:.2f}"  # no -0.00
            ax.text(j, i, number, ha="center", va="center", fontsize=size, color=color)
    ax.set_yticks(range(rows), [short(name, 26) for name in values.index])
    ax.set_xticks(range(columns), [short(name, 18) for name in values.columns], rotation=35,
                  ha="right", rotation_mode="anchor")  # fmt: skip
    ax.tick_params(length=0, labelcolor=INK)
    ax.grid(False)
    ax.set_xticks(np.arange(columns - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
    ax.grid(True, which="minor", axis="both", color=PAPER, linewidth=2)
    ax.tick_params(which="minor", length=0)
    ax.set_xlabel(label, color=MUTED)
    return figure
