"""A figure that sets our numbers beside those that others published."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tff.plots.axes import bands, legend, no_data, one_axes, rows
from tff.plots.style import HUES, INK, MUTED, PAPER, styled

#: How a published number is drawn: marker, and what the legend says.
_KINDS = {
    "same": ("D", "published"),
    "other": ("|", "published, measured otherwise"),
    "suspect": ("x", "published, suspect"),
}


@styled
def beside_published(table: pd.DataFrame, words: Mapping[str, str], xlabel: str) -> Figure:
    """Ours as dots with intervals, theirs as open diamonds, a row for each generator.

    Args:
        table: `generator`, `what`, `ours`, `ours_low`, `ours_high`, `published`,
            `protocol_matches` and `suspect` (empty where it is not).
        words: values of `what` in the wanted order -> their words in the legend.
        xlabel: what the numbers are.
    """
    if table.empty:
        return no_data()
    names = list(dict.fromkeys(table["generator"]))
    kinds = [what for what in words if what in set(table["what"])]
    figure, ax = one_axes(1.5 + len(names) * (0.16 + 0.15 * len(kinds)))
    drawn: set[str] = set()
    for i, what in enumerate(kinds):
        part, color = table[table["what"] == what], HUES[i % len(HUES)]
        where = part["generator"].map(names.index) + (i - (len(kinds) - 1) / 2) * 0.76 / len(kinds)
        ax.hlines(where, part["ours_low"], part["ours_high"], color=color, linewidth=1.6)
        ax.plot(
            part["ours"],
            where,
            "o",
            color=color,
            markersize=5,
            markeredgecolor=PAPER,
            markeredgewidth=0.7,
            label=words[what],
            zorder=3,
        )
        kind = part["protocol_matches"].map({True: "same", False: "other"})
        kind = kind.where(part["suspect"] == "", "suspect")
        drawn |= set(kind)
        for style, at in kind.groupby(kind, sort=False):
            _theirs(ax, part.loc[at.index, "published"], where[at.index], str(style), color)
    for style in (style for style in _KINDS if style in drawn):  # what the legend shows
        _theirs(ax, [], [], style, MUTED, _KINDS[style][1])
    rows(ax, names, xlabel)
    bands(ax, len(names))
    legend(ax, figure)
    return figure


def _theirs(
    ax: Axes, values: object, where: object, style: str, color: str, label: str = ""
) -> None:
    """Published numbers; the color is that of ours, and the shape tells how far to trust them."""
    ax.plot(
        values,  # type: ignore[arg-type]  # a Series or nothing
        where,  # type: ignore[arg-type]
        _KINDS[style][0],
        markerfacecolor="none",
        markeredgecolor=INK if style == "suspect" else color,
        markeredgewidth=1.2,
        markersize=7,
        label=label or "_",
        zorder=4,
    )
