"""Curves over the number of dropped channels, and over training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tff.plots.style import (
    FAINT,
    HUES,
    INK,
    MARKERS,
    MUTED,
    WIDTH,
    finite_values,
    no_data,
    shorten,
    single_axes,
    styled,
)


@styled
def dropout_curves(
    table: pd.DataFrame,
    x: str,
    hue: str,
    y: str,
    xlabel: str,
    ylabel: str,
    labels: Mapping[str, str] | None = None,
    matched: pd.DataFrame | None = None,
    chance: float | None = None,
) -> Figure:
    """Lines of `y` against the number `x` of channels, with bands from `y`_low to `y`_high.

    The axis is linear up to the smallest number above 0 and logarithmic beyond, since the first few
    channels are the ones of interest. All lines begin at the point at 0.

    Args:
        labels: values of `hue` in the order of the legend -> their labels.
        matched: rows of the table whose `matched`, `matched_low` and `matched_high` are drawn as a
            gray band: the same with random channels of the same layers.
        chance: height of a dotted line, where a detector guesses.
    """
    if table.empty:
        return no_data()
    labels = labels or {}
    figure, ax = single_axes(3.4)
    kinds = [kind for kind in labels if kind in set(table[hue])] or list(table[hue].unique())
    for i, kind in enumerate(kinds):
        part = table[table[hue] == kind].sort_values(x)
        label = labels.get(kind, str(kind))
        _add_line(ax, part[x], part, y, HUES[i % len(HUES)], i, label)
    if matched is not None and len(matched):
        of = str(matched[hue].iloc[0])
        _add_matched(ax, matched, x, f"random, layers of {labels.get(of, of)}")
    _count_channels(ax, table[x])
    if chance is not None:
        ax.axhline(chance, color=MUTED, linestyle=_DASHES[1], linewidth=1)
    ax.grid(True, axis="y")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return figure


class Panel(NamedTuple):
    """Curves of one detector on one group of generators.

    Attributes:
        title: above the panel.
        table: columns `k`, `ranking`, `ap` with ends, and `matched` with ends where random channels
            of the same layers were dropped.
        chance: AP of a detector that guesses; None if unknown.
    """

    title: str
    table: pd.DataFrame
    chance: float | None


@styled
def dropout_panels(panels: Sequence[Panel], labels: Mapping[str, str], banded: str) -> Figure:
    """AP against the number of dropped channels, panels side by side.

    Args:
        labels: rankings in the order of the legend -> their labels.
        banded: ranking whose matched random channels are the gray band; the first one that a panel
            has, if it lacks this one.
    """
    if not panels:
        return no_data()
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    known = [by for by in labels if any(by in set(panel.table["ranking"]) for panel in panels)]
    for ax, panel in zip(axes, panels, strict=True):
        for i, by in enumerate(known):
            part = panel.table[panel.table["ranking"] == by].sort_values("k")
            if len(part):
                _add_line(ax, part["k"], part, "ap", _BRIGHT[i % len(_BRIGHT)], i, labels[by])
        matched = panel.table.dropna(subset=["matched"]) if "matched" in panel.table else None
        if matched is not None and len(matched):
            found = set(matched["ranking"])
            of = banded if banded in found else next(by for by in known if by in found)
            part = matched[matched["ranking"] == of]
            _add_matched(ax, part, "k", "random, of the same layers")
        if panel.chance is not None:
            ax.axhline(panel.chance, color=MUTED, linestyle=_DASHES[1], linewidth=1)
        _count_channels(ax, panel.table["k"])
        ax.set_title(shorten(panel.title, 24), fontsize=9, loc="left")
        ax.set_xlim(-0.3 * panel.table["k"][panel.table["k"] > 0].min(), None)
        ax.grid(True, axis="y")
    axes[0].set(ylabel="average precision", ylim=(None, 1.02))
    figure.supxlabel("channels dropped", fontsize=9.5, color=MUTED)
    return figure


def _add_matched(ax: Axes, part: pd.DataFrame, x: str, label: str) -> None:
    """Draw `matched` with its ends as a dashed line in a gray band."""
    part = part.sort_values(x)
    ends = part["matched_low"], part["matched_high"]
    ax.fill_between(part[x], *ends, color=MUTED, alpha=0.25, linewidth=0)
    ax.plot(part[x], part["matched"], color=MUTED, linestyle=_DASHES[0], label=label)


def _count_channels(ax: Axes, ks: pd.Series[int]) -> None:
    """Axis of numbers of channels: linear up to the smallest above 0, logarithmic beyond."""
    counts = ks[ks > 0]
    if len(counts):
        ax.set_xscale("symlog", linthresh=float(counts.min()), linscale=0.4)
        ticks = sorted({0, *counts.unique().tolist()})
        ax.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        ax.minorticks_off()


_BRIGHT = (*HUES[:2], *HUES[3:])  # gray is for the others
_DASHES = ((0, (4, 3)), (0, (1.5, 1.5)))


@styled
def highlighted_lines(
    table: pd.DataFrame, x: str, line: str, y: str, ylabel: str, highlighted: Sequence[str]
) -> Figure:
    """Many lines over training steps: a few in color, all others thin and gray.

    Args:
        table: one row per line and step; steps in `x`, names in `line`, values (0 or more) in `y`.
        highlighted: names of the colored lines, in the order of the legend; those with bounds in
            `y`_low and `y`_high have a band. Colors differ for five of them.
    """
    if table.empty:
        return no_data()
    figure, ax = single_axes(3.6)
    parts = {str(name): part.sort_values(x) for name, part in table.groupby(line, sort=False)}
    for name, part in parts.items():
        if name not in highlighted:
            ax.plot(part[x], part[y], color=MUTED, alpha=0.45, linewidth=0.8, zorder=1,
                    marker=_dot(part))  # fmt: skip
    top = finite_values(table[y]).max(initial=0)
    shown = [name for name in highlighted if name in parts]
    for i, name in enumerate(shown):
        part = parts[name]
        top = max(top, finite_values(part.get(f"{y}_high", [])).max(initial=0))
        _add_line(ax, part[x], part, y, _BRIGHT[i % len(_BRIGHT)], i, name)
    rest = len(parts) - len(shown)
    if rest:
        ax.plot([], [], color=MUTED, alpha=0.6, linewidth=0.8, label=f"{rest} others")
    _label_steps(ax, table[x], ylabel)
    ax.set_ylim(0, 1.05 * max(top, 1e-12))
    return figure


@styled
def share_curves(
    table: pd.DataFrame,
    x: str,
    labels: Mapping[str, str],
    ylabel: str,
    chance: Mapping[str, str] | None = None,
) -> Figure:
    """Shares in percent against training steps, with a band where a column has bounds.

    Args:
        table: one row per step; shares in [0, 1], their bounds in columns `NAME_low`, `NAME_high`.
        labels: columns drawn as lines with dots -> their labels.
        chance: columns expected by chance, drawn dashed and gray -> their labels.
    """
    if table.empty:
        return no_data()
    part = table.sort_values(x)
    figure, ax = single_axes(3.4)
    for i, (column, label) in enumerate(labels.items()):
        _add_line(ax, part[x], part, column, HUES[i % len(HUES)], i, label)
    for i, (column, label) in enumerate((chance or {}).items()):
        dashes = _DASHES[i % len(_DASHES)]
        ax.plot(part[x], part[column], color=MUTED, linestyle=dashes, linewidth=1.4, label=label,
                marker=_dot(part))  # fmt: skip
    _label_steps(ax, part[x], ylabel)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_ylim(-0.03, 1.05)
    return figure


def _add_line(
    ax: Axes, x: pd.Series[float], part: pd.DataFrame, y: str, color: str, number: int, label: str
) -> None:
    """Draw a line with dots, and a band where the column `y` has bounds."""
    if {f"{y}_low", f"{y}_high"} <= set(part):
        ends = part[f"{y}_low"], part[f"{y}_high"]
        ax.fill_between(x, *ends, color=color, alpha=0.12, linewidth=0)
    marker = MARKERS[number % len(MARKERS)]
    ax.plot(x, part[y], color=color, marker=marker, markersize=4, label=label)


def _dot(part: pd.DataFrame) -> str:
    """The marker that makes a line of a single point visible."""
    return "." if len(part) == 1 else ""


def _label_steps(ax: Axes, steps: pd.Series[int], ylabel: str) -> None:
    ax.grid(True, axis="y", color=FAINT)
    ax.set(xlabel="training step", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.tick_params(axis="y", labelcolor=INK)
    if steps.nunique() == 1:  # else the axis would span fractions of a step
        ax.set_xlim(float(steps.iloc[0]) - 1, float(steps.iloc[0]) + 1)
