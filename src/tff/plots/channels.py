"""Figures of channels: omega, layers, two rankings, relevance losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from tff.plots.style import (
    FAINT,
    HUES,
    MUTED,
    add_dots,
    add_reference_line,
    bar_chart,
    finite_values,
    name_rows,
    no_data,
    shorten,
    single_axes,
    styled,
)

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")  # stay in place in any font
LAYERS_SHOWN = 26  # those of a transformer of 12 blocks


@styled
def omega_distribution(omega: pd.DataFrame, k: int) -> Figure:
    """Omega of all channels, largest first, with the first `k` shaded.

    Args:
        omega: columns `omega` and, optionally, `omega_real`.
        k: number of top channels.
    """
    figure, ax = single_axes(3.4)
    zeros = []
    for column, label, color in (("omega", "generated", HUES[0]), ("omega_real", "real", HUES[1])):
        values = np.sort(finite_values(omega.get(column, [])))[::-1]
        positive = values[values > 0]  # zeros have no logarithm; they are counted
        if len(positive) < len(values):
            zeros.append(f"{len(values) - len(positive):,} of {len(values):,} ({label})")
        if len(positive):
            marker = "o" if len(positive) == 1 else None
            ranks = 1 + np.arange(len(positive))
            ax.loglog(ranks, positive, marker=marker, color=color, label=f"{label} images")
    if not ax.lines:
        return no_data()
    note = "\nnot drawn because omega is zero: " + "; ".join(zeros) if zeros else ""
    ax.set(xlabel=f"rank of the channel{note}", ylabel="omega")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda x, _: "10" + f"{np.log10(x):.0f}".translate(SUPERSCRIPTS))
        axis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.axvspan(ax.get_xlim()[0], k, color=FAINT, alpha=0.5, zorder=0)
    add_reference_line(ax, k, f"k = {k}")
    ax.margins(x=0)
    return figure


@styled
def top_channels(ranking: pd.DataFrame) -> Figure:
    """Bars of `omega` for the first 20 rows; diamonds for `omega_real` if it is a column."""
    top = ranking.head(20)
    if top.empty:
        return no_data()
    names = [f"{layer} #{c}" for layer, c in zip(top["layer"], top["channel"], strict=True)]
    figure = bar_chart(names, top["omega"], "omega")
    ax = figure.axes[0]
    if "omega_real" in top:
        rows = range(len(top))
        add_dots(ax, top["omega_real"], rows, HUES[1], "D", markersize=5, label="real images")
        ax.barh([0], [0], color=HUES[0], label="generated images")  # what the legend shows
        largest = finite_values(top[["omega", "omega_real"]]).max(initial=0)
        ax.set_xlim(0, 1.05 * max(largest, 1e-12))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    return figure


@styled
def channels_per_layer(ranking: pd.DataFrame, k: int, order: Sequence[str]) -> Figure:
    """Number of the first `k` rows in each layer, in network `order`.

    A network of more than 26 layers is shown by blocks: `layer1.0` holds `layer1.0.conv1`.
    """
    if ranking.empty:
        return no_data()
    block = group_into_blocks(order)
    shown = list(dict.fromkeys(block.values()))
    lies_in = ranking["layer"].map(block)
    widths = lies_in.value_counts().reindex(shown, fill_value=0)
    found = lies_in.head(k).value_counts().reindex(shown, fill_value=0)
    notes = [f"{f} of {w:,}" for f, w in zip(found, widths, strict=True)]
    figure = bar_chart(shown, found.to_numpy(), f"channels among the top {k}", notes)
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def group_into_blocks(names: Sequence[str]) -> dict[str, str]:
    """Each layer -> itself, or the deepest block that leaves at most `LAYERS_SHOWN` rows."""
    block = {name: name for name in names}
    depth = max(name.count(".") for name in names)
    while depth > 0 and len(set(block.values())) > LAYERS_SHOWN:
        block = {name: ".".join(name.split(".")[:depth]) for name in names}
        depth -= 1
    return block


_STYLES: Sequence[tuple[str, object, float]] = (
    (HUES[0], "-", 2.2),
    (HUES[2], (0, (4, 3)), 1.4),
    (HUES[1], (0, (1.5, 1.5)), 1.6),
)


@styled
def ranking_overlap(curves: pd.DataFrame, labels: Mapping[str, str], k: int) -> Figure:
    """Share of the top k that two rankings have in common, against k.

    Args:
        curves: column `k`, ascending, and a column of shares in [0, 1] for each of `labels`.
        labels: up to three columns -> their labels; the observed overlap comes first.
        k: is marked by a line.
    """
    if curves.empty:
        return no_data()
    figure, ax = single_axes(3.4)
    for (column, label), (color, line, width) in zip(labels.items(), _STYLES, strict=False):
        marker = "o" if len(curves) == 1 else ""
        ax.plot(curves["k"], curves[column], color=color, linestyle=line, linewidth=width,
                label=label, marker=marker)  # fmt: skip
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(True, axis="y")
    ax.set(xlabel="k, the number of top channels", ylabel="in both", ylim=(0, 1.1))
    add_reference_line(ax, k, f"k = {k}")
    return figure


@styled
def layer_correlations(table: pd.DataFrame) -> Figure:
    """Bars of `spearman`, one per `layer`, in the given order; many layers are named by block."""
    if table.empty:
        return no_data()
    names, values = [str(name) for name in table["layer"]], table["spearman"].to_numpy(float)
    if len(names) <= LAYERS_SHOWN:
        figure, ax = single_axes(0.9 + 0.22 * len(names))
        name_rows(ax, names, "")
    else:
        figure, ax = single_axes(0.9 + 0.12 * len(names))
        block, start = group_into_blocks(names), 0
        middles, labels = [], []
        for i, (label, members) in enumerate(groupby(names, key=block.__getitem__)):
            count = len(list(members))
            if i % 2 == 0:
                ax.axhspan(start - 0.5, start + count - 0.5, color=FAINT, alpha=0.4, zorder=0)
            middles.append(start + (count - 1) / 2)
            labels.append(label)
            start += count
        name_rows(ax, labels, "")
        ax.set_yticks(middles, labels)
        ax.set_ylim(len(names) - 0.5, -0.5)
    ax.barh(range(len(names)), np.nan_to_num(values), height=0.7, color=HUES[0])
    ax.plot(np.zeros((~np.isfinite(values)).sum()), np.flatnonzero(~np.isfinite(values)), "x",
            color=HUES[1], markersize=4)  # fmt: skip  # no value: all omegas are equal
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.set(xlim=(min(-0.05, 1.1 * finite_values(values).min(initial=0)), 1.02))
    ax.set_xlabel("rank correlation (Spearman) of the channels of a layer")
    return figure


@styled
def relevance_losses(ledger: pd.DataFrame, max_leak: float) -> Figure:
    """Cumulative loss of relevance on the way from the logit to the image, as a fraction.

    Args:
        ledger: columns `operation`, `lost_to_constants`, `lost_at_zero`; one row per operation,
            from the logit on.
        max_leak: limit, drawn as a line.
    """
    parts = ledger[["lost_at_zero", "lost_to_constants"]].abs().fillna(0)
    if parts.empty:
        return no_data()
    figure, ax = single_axes(2.8)
    at = np.arange(1, len(parts) + 1)
    total = parts.cumsum()
    labels = ["at units without support", "to biases and other constants"]
    ax.stackplot(at, total["lost_at_zero"], total["lost_to_constants"], step="mid", colors=HUES[:2],
                 labels=labels, alpha=0.8)  # fmt: skip
    ax.axhline(max_leak, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ends = [shorten(name) for name in ledger["operation"].iloc[[0, -1]]]
    ax.set_xticks([1, len(parts)], ends)
    ax.set(
        xlabel="operations, from the logit to the image",
        ylabel="relevance lost so far",
        xlim=(0.5, len(parts) + 0.5),
        ylim=(0, 1.1 * max(float(total.sum(axis=1).iloc[-1]), 1.5 * max_leak)),
    )
    return figure
