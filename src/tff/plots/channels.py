"""Figures of channels: how large their omega is and in which layers they lie."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from tff.plots.axes import bars, finite, legend, no_data, one_axes, reference_line
from tff.plots.style import FAINT, HUES, PAPER, styled

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")  # stay in place in any font
LAYERS_SHOWN = 24


@styled
def omega_distribution(omega: pd.DataFrame, k: int) -> Figure:
    """Omega of all channels, largest first; the first `k` are shaded; `omega_real` is optional."""
    figure, ax = one_axes(3.4)
    zeros = []
    for column, label, color in (
        ("omega", "generated", HUES[0]),
        ("omega_real", "real", HUES[1]),
    ):
        values = np.sort(finite(omega.get(column, [])))[::-1]
        positive = values[values > 0]  # a logarithm has no place for zero: zeros are counted
        if len(positive) < len(values):
            zeros.append(f"{len(values) - len(positive):,} of {len(values):,} ({label})")
        if len(positive):
            marker = "o" if len(positive) == 1 else None
            ranks = 1 + np.arange(len(positive))
            ax.loglog(ranks, positive, marker=marker, color=color, label=f"{label} images")
    if not ax.lines:
        return no_data()
    note = "\nomega is zero, and so not drawn: " + "; ".join(zeros) if zeros else ""
    ax.set(xlabel=f"rank of the channel{note}", ylabel="omega")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda x, _: "10" + f"{np.log10(x):.0f}".translate(SUPERSCRIPTS))
        axis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.axvspan(ax.get_xlim()[0], k, color=FAINT, alpha=0.5, zorder=0)
    reference_line(ax, k, f"k = {k}")
    ax.margins(x=0)
    legend(ax, figure)
    return figure


@styled
def top_channels(ranking: pd.DataFrame, n: int = 20) -> Figure:
    """Bars of `omega` for the first `n` rows; diamonds for `omega_real` where there is one."""
    top = ranking.head(n)
    if top.empty:
        return no_data()
    names = [f"{layer} #{c}" for layer, c in zip(top["layer"], top["channel"], strict=True)]
    figure = bars(names, top["omega"], "omega")
    ax = figure.axes[0]
    if "omega_real" in top:
        ax.plot(
            top["omega_real"],
            range(len(top)),
            "D",
            color=HUES[1],
            markersize=5,
            markeredgecolor=PAPER,
            markeredgewidth=0.7,
            label="real images",
        )
        ax.barh([0], [0], color=HUES[0], label="generated images")  # what the legend shows
        ax.set_xlim(0, 1.05 * max(finite(top[["omega", "omega_real"]]).max(initial=0), 1e-12))
        legend(ax, figure)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    return figure


@styled
def layers(ranking: pd.DataFrame, k: int, order: Sequence[str] | None = None) -> Figure:
    """How many of the first `k` rows lie in each layer, in network `order` (else by name).

    A network of more than 24 layers is shown by its blocks: `layer1.0` holds `layer1.0.conv1`.
    """
    if ranking.empty:
        return no_data()
    block = blocks(order or sorted(ranking["layer"].unique(), key=_natural))
    shown = list(dict.fromkeys(block.values()))
    lies_in = ranking["layer"].map(block)
    widths = lies_in.value_counts().reindex(shown, fill_value=0)
    found = lies_in.head(k).value_counts().reindex(shown, fill_value=0)
    notes = [f"{f} of {w:,}" for f, w in zip(found, widths, strict=True)]
    figure = bars(shown, found.to_numpy(), f"channels among the top {k}", notes)
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def _natural(name: str) -> str:
    """Sorts `layer10` after `layer2`."""
    return re.sub(r"\d+", lambda number: number[0].zfill(6), name)


def blocks(names: Sequence[str]) -> dict[str, str]:
    """Each layer -> what it is shown as: itself, or the smallest block that makes few enough."""
    block = {name: name for name in names}
    depth = max(name.count(".") for name in names)
    while depth > 0 and len(set(block.values())) > LAYERS_SHOWN:
        block = {name: ".".join(name.split(".")[:depth]) for name in names}
        depth -= 1
    return block
