"""Tests of channels when a cue is taken away: does a response change, and does it matter?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tff.statistics.channel_tests import (
    benjamini_hochberg,
    cliffs_delta,
    correlated_areas,
    median_test,
    wilcoxon,
)

Values = NDArray[np.float64] | NDArray[np.float32]


def channel_tests(labels: NDArray[np.int64], plain: Values, ablated: Values) -> pd.DataFrame:
    """One row a channel.

    Columns: of generated images, `p_value` and `q_value` of Mood's median test (the paper's, which
    takes the samples for independent), `wilcoxon_p` and `wilcoxon_q` of the signed-rank test on the
    same images, `cliffs_delta` (how far the responses move, -1 to 1), `median`, `median_ablated`.
    Of both kinds, `area` and `area_ablated`, how well the channel alone tells generated from real
    images (area under the ROC curve, 0.5: not at all), `separation_p` and `separation_q` of
    DeLong's test that both are equal; `area_lost`, by how much the area comes nearer to 0.5, and
    `loses`, whether it does.

    All `q` are adjusted for the number of channels (Benjamini and Hochberg, 1995).

    Args:
        labels: (n,) 1 generated, 0 real.
        plain: (n, C) responses to the images as they are.
        ablated: (n, C) to the same images without the cue.
    """
    # A response that is no number, of a network that overflows, tells nothing.
    fake = labels == 1
    a, b = (np.nan_to_num(values[fake].astype(np.float64)) for values in (plain, ablated))
    areas = correlated_areas(labels, np.nan_to_num(plain), np.nan_to_num(ablated))
    some = bool(fake.any())
    table = pd.DataFrame(
        {
            "p_value": median_test(a, b),
            "wilcoxon_p": wilcoxon(a, b),
            "cliffs_delta": cliffs_delta(b, a),
            "median": np.median(a, axis=0) if some else np.nan,
            "median_ablated": np.median(b, axis=0) if some else np.nan,
            "area": areas.area_a,
            "area_ablated": areas.area_b,
            "separation_p": areas.p,
        }
    )
    for name in ("p_value", "wilcoxon_p", "separation_p"):
        adjusted = {"p_value": "q_value"}.get(name, name.replace("_p", "_q"))
        table[adjusted] = benjamini_hochberg(table[name].to_numpy())
    lost = np.abs(table["area"] - 0.5) - np.abs(table["area_ablated"] - 0.5)
    return table.assign(area_lost=lost, loses=lost > 0)


def shares(tests: pd.DataFrame, alpha: float) -> dict[str, float]:
    """Which part of the channels is called conditional, by one way of testing after the other.

    `share` is the paper's; `share_corrected` with adjusted p-values; `share_paired` by the
    signed-rank test, adjusted; `share_separating` counts channels that tell generated from real
    images worse without the cue, adjusted.
    """
    if tests.empty:
        return dict.fromkeys(SHARES, np.nan)
    return {
        "share": float((tests["p_value"] <= alpha).mean()),
        "share_corrected": float((tests["q_value"] <= alpha).mean()),
        "share_paired": float((tests["wilcoxon_q"] <= alpha).mean()),
        "share_separating": float(((tests["separation_q"] <= alpha) & tests["loses"]).mean()),
    }


#: In words.
SHARES = {
    "share": "median test, as in the paper",
    "share_corrected": "median test, corrected",
    "share_paired": "paired test, corrected",
    "share_separating": "separates worse, corrected",
}
