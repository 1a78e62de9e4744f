"""Figures of how samples are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tff.plots.axes import bands, finite, legend, no_data, one_axes, reference_line, rows, short
from tff.plots.style import HUES, WIDTH, styled


@styled
def boxes(
    groups: Mapping[str, Mapping[str, NDArray[Any]]], ylabel: str, reference: float | None = None
) -> Figure:
    """A row a group, in it a box for each of its samples (whiskers: 5th to 95th percentile)."""
    kinds = list(dict.fromkeys(kind for samples in groups.values() for kind in samples))
    if not kinds:
        return no_data()
    figure, ax = one_axes(1.0 + len(groups) * (0.12 + 0.2 * len(kinds)))
    step = 0.76 / len(kinds)
    for j, kind in enumerate(kinds):
        color, shift = HUES[j % len(HUES)], (j - (len(kinds) - 1) / 2) * step
        ax.boxplot(
            [finite(samples.get(kind, [])) for samples in groups.values()],
            positions=[i + shift for i in range(len(groups))],
            widths=step * 0.72,
            whis=(5, 95),
            whiskerprops={"color": color},
            boxprops={"facecolor": color},
            patch_artist=True,
            showfliers=False,
            showcaps=False,
            orientation="horizontal",
            manage_ticks=False,
        )
        ax.barh([0], [0], color=color, label=kind)  # what the legend shows
    rows(ax, groups, ylabel)
    bands(ax, len(groups))
    if reference is not None:
        reference_line(ax, reference)
    legend(ax, figure)
    return figure


@styled
def densities(
    pairs: Sequence[tuple[str, NDArray[Any], NDArray[Any]]],
    labels: tuple[str, str] = ("color", "gray"),
) -> Figure:
    """Small multiples: how the two samples of each pair are spread; dotted lines are medians."""
    if not pairs:
        return no_data()
    columns = min(3, len(pairs))
    lines = -(-len(pairs) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.5 * lines), layout="constrained")
    for i, (title, *samples) in enumerate(pairs):
        ax = figure.add_subplot(lines, columns, i + 1, yticks=[])
        ax.set_title(short(title, 26), fontsize=9, loc="left")
        values = [finite(sample) for sample in samples]
        edges = np.histogram_bin_edges(np.concatenate(values), 32)
        for sample, label, color in zip(values, labels, HUES, strict=False):
            heights = np.histogram(sample, edges)[0] / max(len(sample), 1)
            ax.stairs(heights, edges, fill=True, color=color, alpha=0.25)
            ax.stairs(heights, edges, color=color, linewidth=1.2, label=label)
            ax.axvline(float(np.median(sample)) if len(sample) else np.nan, color=color, ls=":")
        ax.xaxis.set_major_locator(MaxNLocator(3))
    legend(figure.axes[0], figure)
    return figure
