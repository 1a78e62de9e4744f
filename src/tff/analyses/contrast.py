"""The top k against channels that were drawn at random: how much more do they cost?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tff.analyses.judge import WHERE, over_generators
from tff.analyses.subject import Subject
from tff.statistics.bootstrap import Estimate, below

Aps = dict[str, Estimate]  # of each generator


def contrast(
    subject: Subject, found: Mapping[str, Aps], single: Mapping[str, Sequence[Aps]]
) -> pd.DataFrame:
    """By how much AP is lower without the top k than without others, with intervals.

    Args:
        found: AP with each choice dropped.
        single: of random channels, AP with each draw of them dropped.
    """

    def with_means(aps: Aps) -> Aps:
        parts = over_generators(subject, aps)
        return aps | {WHERE[where]: ap for where, ap in parts.items() if where != "unseen_worst"}

    top, low = with_means(found["top_k"]), with_means(found["low_k"])
    drawn = {control: [with_means(draw) for draw in draws] for control, draws in single.items()}
    by = {c: {g: below(ap, [one[g] for one in of]) for g, ap in top.items()}
          for c, of in drawn.items()}  # fmt: skip
    by["low_k"] = {generator: low[generator] - ap for generator, ap in top.items()}
    return pd.DataFrame(
        {"generator": generator, "against": control, **difference.columns("ap_lower_by")}
        for control, differences in by.items()
        for generator, difference in differences.items()
    )


def verdict(low: float, high: float) -> str:
    """What the ends of the interval of a difference from random channels say of it."""
    if np.isnan([low, high]).any():
        return "of a single draw nobody knows its chance"
    if low > 0:
        return "more than chance"
    return "less, and not by chance" if high < 0 else "no more than chance can do"


def spread(alone: list[Estimate]) -> dict[str, float]:
    """How much AP differs between single draws of random channels."""
    aps = np.array([ap.value for ap in alone])
    known = len(aps) > 0
    return {
        "ap_draws_mean": float(aps.mean()) if known else np.nan,
        "ap_draws_sd": float(aps.std(ddof=1)) if len(aps) > 1 else np.nan,
        "ap_draws_min": float(aps.min()) if known else np.nan,
        "ap_draws_max": float(aps.max()) if known else np.nan,
    }
