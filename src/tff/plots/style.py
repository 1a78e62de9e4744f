"""The look of all figures: colors, sizes, and the decorator that applies them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure

P = ParamSpec("P")
WIDTH = 5.6  # inches; what a text column and, shrunk, a phone can hold
INK, MUTED, FAINT, PAPER = "#1f2933", "#66717e", "#e1e5ea", "#ffffff"
# As it was, with the intervention, controls. Safe for the color-blind (Okabe and Ito, 2008).
HUES = ("#0072b2", "#d55e00", "#7b8794", "#009e73", "#cc79a7", "#e69f00")
DARK = {  # what each becomes on a dark page
    INK: "#e4e7eb",
    MUTED: "#9aa5b1",
    FAINT: "#2d343c",
    PAPER: "#14171a",
    HUES[0]: "#56a9e0",
    HUES[1]: "#f28c4b",
    HUES[2]: "#929eab",
    HUES[3]: "#35c79a",
    HUES[4]: "#e39bc4",
    HUES[5]: "#f2b844",
}
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
    """Makes `draw` work in this style, whatever the caller's settings of matplotlib are."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper
