"""Curves over the number of dropped channels, and over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tff.plots.style import (
    FAINT,
    HUES,
    INK,
    MUTED,
    add_legend,
    finite_values,
    no_data,
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
    words: Mapping[str, str] | None = None,
) -> Figure:
    """Lines of `y` with bands from `y`_low to `y`_high, against the fraction `x` in percent.

    The axis is linear up to the smallest share above 0, and logarithmic from there on, since the
    first few channels are the ones of interest. A point at 0 is where all lines begin.

    Args:
        words: of the values of `hue`, in the wanted order.
    """
    if table.empty:
        return no_data()
    figure, ax = single_axes(3.4)
    kinds = [k for k in (words or {}) if k in set(table[hue])] or list(table[hue].unique())
    for i, kind in enumerate(kinds):
        part = table[table[hue] == kind].sort_values(x)
        share, color = 100 * part[x], HUES[i % len(HUES)]
        ax.fill_between(share, part[f"{y}_low"], part[f"{y}_high"], color=color, alpha=0.12, lw=0)
        label = (words or {}).get(kind, str(kind))
        ax.plot(share, part[y], color=color, marker="oDs^vP"[i % 6], markersize=4, label=label)
    above = 100 * table[x][table[x] > 0]
    if len(above):
        ax.set_xscale("symlog", linthresh=float(above.min()), linscale=0.4)
        ticks = sorted({0.0, *above.round(3).unique().tolist()})
        ax.set_xticks(ticks, [f"{float(f'{tick:.2g}'):g}" for tick in ticks])
        ax.minorticks_off()
    ax.grid(True, axis="y")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    add_legend(ax, figure)
    return figure


_BRIGHT = [color for i, color in enumerate(HUES) if i != 2]  # gray is for the others
_DASHES: Sequence[object] = ((0, (4, 3)), (0, (1.5, 1.5)))


@styled
def highlighted_lines(
    table: pd.DataFrame, x: str, line: str, y: str, ylabel: str, named: Sequence[str]
) -> Figure:
    """A thin gray line for each thing, and a colored one for the few that are named.

    Args:
        table: a row a thing and step.
        x: column of the steps.
        line: column that tells the things apart.
        y: column of the numbers, 0 or more.
        ylabel: their words.
        named: things that are colored and stand in the legend, in this order; those with bounds in
            `y`_low and `y`_high have a band. Five at most can be told apart.
    """
    if table.empty:
        return no_data()
    figure, ax = single_axes(3.6)
    things = {str(n): part.sort_values(x) for n, part in table.groupby(line, sort=False)}
    for thing, part in things.items():
        if thing not in named:
            ax.plot(part[x], part[y], color=MUTED, alpha=0.45, linewidth=0.8, zorder=1,
                    marker=_dot(part))  # fmt: skip
    top = finite_values(table[y]).max(initial=0)
    shown = [name for name in named if name in things]
    for i, name in enumerate(shown):
        part, color = things[name], _BRIGHT[i % len(_BRIGHT)]
        if {f"{y}_low", f"{y}_high"} <= set(part):
            ends = part[f"{y}_low"], part[f"{y}_high"]
            top = max(top, finite_values(ends[1]).max(initial=0))
            ax.fill_between(part[x], *ends, color=color, alpha=0.1, linewidth=0)
        marker = "oDs^vP"[i % 6]
        ax.plot(part[x], part[y], color=color, marker=marker, markersize=4, label=name)
    rest = len(things) - len(shown)
    if rest:
        ax.plot([], [], color=MUTED, alpha=0.6, linewidth=0.8, label=f"{rest} others")
    _steps(ax, table[x], ylabel)
    ax.set_ylim(0, 1.05 * max(top, 1e-12))
    add_legend(ax, figure)
    return figure


@styled
def share_curves(
    table: pd.DataFrame,
    x: str,
    words: Mapping[str, str],
    ylabel: str,
    chance: Mapping[str, str] | None = None,
) -> Figure:
    """Shares in percent against steps; a band where a column has bounds.

    Args:
        table: a row a step; shares in [0, 1], their bounds in columns `NAME_low` and `NAME_high`.
        x: column of the steps.
        words: columns that are drawn as lines with dots -> their words in the legend.
        ylabel: below the numbers.
        chance: columns of what chance gives, dashed and gray -> their words.
    """
    if table.empty:
        return no_data()
    part = table.sort_values(x)
    figure, ax = single_axes(3.4)
    for i, (column, word) in enumerate(words.items()):
        color = HUES[i % len(HUES)]
        if {f"{column}_low", f"{column}_high"} <= set(part):
            ends = part[f"{column}_low"], part[f"{column}_high"]
            ax.fill_between(part[x], *ends, color=color, alpha=0.12, linewidth=0)
        marker = "oDs^vP"[i % 6]
        ax.plot(part[x], part[column], color=color, marker=marker, markersize=4, label=word)
    for i, (column, word) in enumerate((chance or {}).items()):
        dashes = _DASHES[i % len(_DASHES)]
        ax.plot(part[x], part[column], color=MUTED, linestyle=dashes, linewidth=1.4, label=word,
                marker=_dot(part))  # fmt: skip
    _steps(ax, part[x], ylabel)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_ylim(-0.03, 1.05)
    add_legend(ax, figure)
    return figure


def _dot(part: pd.DataFrame) -> str:
    """A line of one point would not be seen."""
    return "." if len(part) == 1 else ""


def _steps(ax: Axes, steps: pd.Series[int], ylabel: str) -> None:
    ax.grid(True, axis="y", color=FAINT)
    ax.set(xlabel="training step", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.tick_params(axis="y", labelcolor=INK)
    if steps.nunique() == 1:  # else the axis would span fractions of a step
        ax.set_xlim(float(steps.iloc[0]) - 1, float(steps.iloc[0]) + 1)
