"""What the checkpoints of a training tell: sentences and figures from their tables."""

from __future__ import annotations

import pandas as pd

from tff.analyses.emergence_tables import over_generators
from tff.analyses.median_test import SHARES
from tff.plots import curves
from tff.types import Result

DRAWN = ("share_separating", "share")


def tell_stability(result: Result, stable: pd.DataFrame, k: int) -> None:
    """Overlap with the final top k, and when half of it was there.

    Args:
        stable: as `emergence_tables.stability` makes it, of two steps or more.
    """
    final = stable[stable["compared"] == "final"]
    last = int(final["other_step"].iloc[0])
    # "There" means that it stays so: a step after which the half was lost again is not told.
    below = final.index[2 * final["overlap"] < k]
    there = final if below.empty else final[final.index > below[-1]]
    if there.empty:
        result.findings.append(
            f"Half of the final top {k} came after step {int(final['step'].iloc[-1]):,}, the "
            f"last checkpoint but one: {int(final['overlap'].iloc[-1])} were there then."
        )
    else:
        row = there.iloc[0]
        first = ", the first analysed one" if len(there) == len(final) else ""
        result.findings.append(
            f"From step {int(row['step']):,} on{first}, at least half of the final top {k} "
            f"(step {last:,}) are in the top {k}: {int(row['overlap'])} then. Chance gives "
            f"{row['by_chance']:.1f}, and {row['within_layers']:.1f} with the layers kept."
        )
    row = final.iloc[-1]
    result.findings.append(
        f"Between the last two checkpoints, {int(row['overlap'])} of {k} stayed; the rank "
        f"correlation (Spearman) of omega over all channels is {row['spearman']:.3f}."
    )
    result.scalars |= {
        "step_of_half": float(there["step"].iloc[0]) if len(there) else float("nan"),
        "overlap_of_last_two": float(row["overlap"]),
        "spearman_of_last_two": float(row["spearman"]),
    }
    following = stable[stable["compared"] == "next"].set_index("step")["share"]
    drawn = final.assign(
        next=final["step"].map(following),
        chance=final["by_chance"] / k,
        within=final["within_layers"] / k,
    )
    words = {"share": "with the final one", "next": "with the next one"}
    chance = {"chance": "final, by chance", "within": "final, by chance within layers"}
    result.figures["stability"] = curves.shares(
        drawn, "step", words, f"of the top {k} in both", chance
    )
    result.captions["stability"] = (
        f"Share of the top {k} of a checkpoint that is also in the top {k} of the final one, "
        "and of the next one."
    )


def tell_shares(result: Result, shares: pd.DataFrame) -> None:
    """Conditional shares against steps; where there are none, a warning that says how to get them.

    Args:
        shares: as `emergence_tables.conditional` makes it.
    """
    if shares.empty:
        result.warnings.append(
            "No checkpoint was asked for its color-conditional share: add `median_test` to the "
            "analyses of the callback."
        )
        return
    columns = [c for c in DRAWN if c in shares]
    means = over_generators(shares, columns)
    first, last = means.iloc[0], means.iloc[-1]
    cue = ", ".join(shares["cue"].unique())
    for column in columns:
        result.scalars[f"{column}_final"] = float(last[column])
        result.findings.append(
            f"{cue.capitalize()}-conditional ({SHARES[column]}): {100 * first[column]:.0f} % "
            f"of the top channels at step {int(first['step']):,}, {100 * last[column]:.0f} % "
            f"at step {int(last['step']):,} (mean over {int(last['n'])} generators)."
        )
    result.figures["conditional_over_time"] = curves.shares(
        means, "step", {c: SHARES[c] for c in columns}, f"{cue}-conditional top channels"
    )
    result.captions["conditional_over_time"] = (
        "Share of the top channels that are conditional: mean over generators, and the range "
        "from the least to the largest."
    )
