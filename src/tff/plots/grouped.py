"""Values by group: points with intervals, box plots, histograms, published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tff.plots.style import (
    HUES,
    INK,
    MARKERS,
    MUTED,
    WIDTH,
    add_dots,
    add_reference_line,
    finite_values,
    name_rows,
    no_data,
    shorten,
    single_axes,
    styled,
)


@styled
def grouped_points(
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
    """One row per value of `x`, with a dot and its interval for each value of `hue`.

    Rows whose column `seen` is true come first and are marked.

    Args:
        table: the values are in column `y`, the ends of their intervals in `low` and `high`.
        labels: values of `hue` in the order of the legend -> their labels.
    """
    if table.empty:
        return no_data()
    labels = labels or {}
    seen = set(table[x][table["seen"].eq(True)]) if "seen" in table else set()
    names = sorted(table[x].unique(), key=lambda name: name not in seen)  # stable
    present = set(table[hue])
    kinds = [kind for kind in dict.fromkeys([*labels, *table[hue]]) if kind in present]
    figure, ax = single_axes(1.0 + len(names) * (0.16 + 0.13 * len(kinds)))
    for i, kind in enumerate(kinds):
        part, color = table[table[hue] == kind], HUES[i % len(HUES)]
        where = part[x].map(names.index) + (i - (len(kinds) - 1) / 2) * 0.72 / len(kinds)
        if low and high:
            ax.hlines(where, part[low], part[high], color=color, linewidth=1.6, alpha=0.75)
        add_dots(ax, part[y], where, color, MARKERS[i % len(MARKERS)], markersize=6, zorder=3,
                 label=labels.get(kind, str(kind)))  # fmt: skip
    shown = [shorten(name, 24) + " (seen)" * (name in seen) for name in names]
    name_rows(ax, shown, ylabel, shaded=True)
    if reference is not None:
        add_reference_line(ax, reference)
    return figure


@styled
def box_plot(
    groups: Mapping[str, Mapping[str, NDArray[Any]]], ylabel: str, reference: float = 0.5
) -> Figure:
    """One row per group, with a box for each sample (whiskers: 5th to 95th percentile)."""
    kinds = list(dict.fromkeys(kind for samples in groups.values() for kind in samples))
    if not kinds:
        return no_data()
    figure, ax = single_axes(1.0 + len(groups) * (0.12 + 0.2 * len(kinds)))
    step = 0.76 / len(kinds)
    for j, kind in enumerate(kinds):
        color, shift = HUES[j % len(HUES)], (j - (len(kinds) - 1) / 2) * step
        ax.boxplot(
            [finite_values(samples.get(kind, [])) for samples in groups.values()],
            positions=[i + shift for i in range(len(groups))], widths=step * 0.72, whis=(5, 95),
            whiskerprops={"color": color}, boxprops={"facecolor": color}, patch_artist=True,
            showfliers=False, showcaps=False, orientation="horizontal", manage_ticks=False,
        )  # fmt: skip
        ax.barh([0], [0], color=color, label=kind)  # what the legend shows
    name_rows(ax, groups, ylabel, shaded=True)
    add_reference_line(ax, reference)
    return figure


@styled
def histograms(
    pairs: Sequence[tuple[str, NDArray[Any], NDArray[Any]]], labels: tuple[str, str]
) -> Figure:
    """Small multiples: histograms of two samples each; dotted lines are medians.

    Args:
        pairs: title and two samples.
        labels: of the first and the second samples.
    """
    if not pairs:
        return no_data()
    columns = min(3, len(pairs))
    lines = -(-len(pairs) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.5 * lines), layout="constrained")
    for i, (title, *samples) in enumerate(pairs):
        ax = figure.add_subplot(lines, columns, i + 1, yticks=[])
        ax.set_title(shorten(title, 26), fontsize=9, loc="left")
        values = [finite_values(sample) for sample in samples]
        edges = np.histogram_bin_edges(np.concatenate(values), 32)
        for sample, label, color in zip(values, labels, HUES, strict=False):
            heights = np.histogram(sample, edges)[0] / max(len(sample), 1)
            ax.stairs(heights, edges, fill=True, color=color, alpha=0.25)
            ax.stairs(heights, edges, color=color, linewidth=1.2, label=label)
            ax.axvline(float(np.median(sample)) if len(sample) else np.nan, color=color, ls=":")
        ax.xaxis.set_major_locator(MaxNLocator(3))
    return figure


#: Published numbers by how far to trust them: marker, and label in the legend.
_KINDS = {
    "same": ("D", "published"),
    "other": ("|", "published, other protocol"),
    "suspect": ("x", "published, suspect"),
}


@styled
def published_comparison(table: pd.DataFrame, labels: Mapping[str, str], xlabel: str) -> Figure:
    """Our numbers as dots with intervals and published ones as open diamonds, by generator.

    Args:
        table: `generator`, `what`, `ours`, `ours_low`, `ours_high`, `published`,
            `protocol_matches` and `suspect` (empty where it is not).
        labels: values of `what` in the order of the legend -> their labels.
        xlabel: label of the numbers.
    """
    if table.empty:
        return no_data()
    names = list(dict.fromkeys(table["generator"]))
    kinds = [what for what in labels if what in set(table["what"])]
    figure, ax = single_axes(1.5 + len(names) * (0.16 + 0.15 * len(kinds)))
    drawn: set[str] = set()
    for i, what in enumerate(kinds):
        part, color = table[table["what"] == what], HUES[i % len(HUES)]
        where = part["generator"].map(names.index) + (i - (len(kinds) - 1) / 2) * 0.76 / len(kinds)
        ax.hlines(where, part["ours_low"], part["ours_high"], color=color, linewidth=1.6)
        add_dots(ax, part["ours"], where, color, markersize=5, zorder=3, label=labels[what])
        kind = part["protocol_matches"].map({True: "same", False: "other"})
        kind = kind.where(part["suspect"] == "", "suspect")
        drawn |= set(kind)
        for style, rows in kind.groupby(kind, sort=False):
            values = part.loc[rows.index, "published"]
            _add_published(ax, values, where[rows.index], str(style), color)
    for style in (style for style in _KINDS if style in drawn):  # what the legend shows
        _add_published(ax, [], [], style, MUTED, _KINDS[style][1])
    name_rows(ax, names, xlabel, shaded=True)
    return figure


def _add_published(
    ax: Axes, values: Any, where: Any, style: str, color: str, label: str = "_"
) -> None:
    """Draw published numbers in the color of ours; the marker says how far to trust them."""
    edge = INK if style == "suspect" else color
    ax.plot(values, where, _KINDS[style][0], markerfacecolor="none", markeredgecolor=edge,
            markeredgewidth=1.2, markersize=7, label=label, zorder=4)  # fmt: skip
