"""The relevance ledger as a figure: what is lost on the way from the logit to the image."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tff.plots.axes import legend, no_data, one_axes, short
from tff.plots.style import HUES, MUTED, styled


@styled
def losses(ledger: pd.DataFrame, max_leak: float) -> Figure:
    """Relevance lost so far on the way from the logit to the image, as a part of the whole.

    Args:
        ledger: `operation`, `lost_to_bias`, `lost_at_zero`, a row an operation, in that order.
        max_leak: a line is drawn there.
    """
    parts = ledger[["lost_at_zero", "lost_to_bias"]].abs().fillna(0)
    if parts.empty:
        return no_data()
    figure, ax = one_axes(2.8)
    at = np.arange(1, len(parts) + 1)
    total = parts.cumsum()
    ax.stackplot(
        at,
        total["lost_at_zero"],
        total["lost_to_bias"],
        step="mid",
        colors=HUES[:2],
        labels=["at units without support", "to biases"],
        alpha=0.8,
    )
    ax.axhline(max_leak, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ends = [short(name) for name in ledger["operation"].iloc[[0, -1]]]
    ax.set_xticks([1, len(parts)], ends)
    ax.set(
        xlabel="operations, from the logit to the image",
        ylabel="relevance lost so far",
        xlim=(0.5, len(parts) + 0.5),
        ylim=(0, 1.1 * max(float(total.sum(axis=1).iloc[-1]), 1.5 * max_leak)),
    )
    legend(ax, figure)
    return figure
