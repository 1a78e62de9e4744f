"""The look of all figures, and parts that several share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tff.safe_text import make_printable

P = ParamSpec("P")
HIGHEST = 100.0  # inches; matplotlib draws no more than 65,536 pixels
WIDTH = 5.6  # inches; what a text column and, shrunk, a phone can hold
INK, MUTED, FAINT, PAPER = "#1f2933", "#66717e", "#e1e5ea", "#ffffff"
# Unchanged, with the intervention, controls. Safe for the color-blind (Okabe and Ito, 2008).
HUES = ("#0072b2", "#d55e00", "#7b8794", "#009e73", "#cc79a7", "#e69f00")
MARKERS = "oDs^vP"
DARK = {  # each color on a dark page
    INK: "#e4e7eb", MUTED: "#9aa5b1", FAINT: "#2d343c", PAPER: "#14171a",
    HUES[0]: "#56a9e0", HUES[1]: "#f28c4b", HUES[2]: "#929eab",
    HUES[3]: "#35c79a", HUES[4]: "#e39bc4", HUES[5]: "#f2b844",
}  # fmt: skip
STYLE: dict[Any, Any] = {
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "axes.facecolor": "none",
    "axes.labelsize": 9.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "xtick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.color": MUTED,
    "ytick.labelsize": 9,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "patch.linewidth": 0,
    "boxplot.boxprops.linewidth": 0,
    "boxplot.medianprops.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "tff",  # the same figure is the same file
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a figure function: this style, and a legend of what has labels."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            figure = draw(*args, **kwargs)
            for ax in figure.axes:
                for axis in (ax.xaxis, ax.yaxis):
                    axis.label.set_text(shorten(axis.label.get_text(), 120))
            _add_legend(figure)
            return figure

    return wrapper


def single_axes(height: float) -> tuple[Figure, Axes]:
    """A figure of the usual width, `height` inches high, with one pair of axes."""
    figure = Figure(figsize=(WIDTH, min(height, HIGHEST)), layout="constrained")
    return figure, figure.add_subplot()


def no_data() -> Figure:
    """Placeholder figure for a table or list without anything to show."""
    figure, ax = single_axes(1.2)
    ax.set_axis_off()
    ax.text(0.5, 0.5, "no data", ha="center", va="center", color=MUTED, transform=ax.transAxes)
    return figure


def finite_values(values: object) -> NDArray[np.float64]:
    """The finite values, flattened: (n,)."""
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def shorten(name: object, limit: int = 30) -> str:
    """The name as it is drawn: printable, and with an ellipsis where it is longer than `limit`."""
    text = make_printable(str(name))
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[1 - limit // 2 :]}"


def name_rows(ax: Axes, names: Collection[object], label: str, shaded: bool = False) -> None:
    """Name rows from the top, label the axis of the values, and shade every other row."""
    ax.set_yticks(range(len(names)), [shorten(name) for name in names])
    ax.set(ylim=(len(names) - 0.4, -0.6), xlabel=label)
    if shaded:
        for i in range(0, len(names), 2):
            ax.axhspan(i - 0.5, i + 0.5, color=FAINT, alpha=0.4, zorder=0)
        ax.set_ylim(len(names) - 0.5, -0.5)


def add_dots(ax: Axes, x: Any, y: Any, color: str, marker: str = "o", **look: Any) -> None:
    """Draw dots; an outline keeps those apart that overlap."""
    outline: dict[str, Any] = {"markeredgecolor": PAPER, "markeredgewidth": 0.7}
    ax.plot(x, y, linestyle="", marker=marker, color=color, **outline, **look)


def _add_legend(figure: Figure) -> None:
    """Add a legend above the figure: one line if it fits, else two columns."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if labels:
        columns = len(labels) if sum(5 + len(label) for label in labels) < 75 else 2
        names = [shorten(label) for label in labels]
        figure.legend(handles, names, loc="outside upper left", ncols=columns, handletextpad=0.4,
                      columnspacing=1.4)  # fmt: skip


def _annotate(
    ax: Axes, text: str, xy: tuple[float, float], offset: tuple[int, int], **kw: Any
) -> None:
    """Write small gray text beside a point."""
    ax.annotate(text, xy, offset, textcoords="offset points", color=MUTED, fontsize=8.5, **kw)


def add_reference_line(ax: Axes, value: float, text: str = "") -> None:
    """Draw a dashed vertical line at a value, with a text at its top."""
    ax.axvline(value, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    _annotate(ax, text, (value, 1), (4, 2), xycoords=("data", "axes fraction"))


def bar_chart(
    names: Sequence[object], values: Any, label: str, notes: Iterable[str] = ()
) -> Figure:
    """Horizontal bars, one per name, with a note at the end of each."""
    figure, ax = single_axes(0.9 + 0.22 * len(names))
    ax.barh(range(len(names)), values, height=0.62, color=HUES[0])
    for i, (value, text) in enumerate(zip(np.nan_to_num(values), notes, strict=False)):
        _annotate(ax, text, (value, i), (5, 0), va="center")
    name_rows(ax, names, label)
    ax.set_xlim(0, 1.18 * max(finite_values(values).max(initial=0), 1e-12))
    return figure
