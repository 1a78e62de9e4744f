"""Median test: which channels respond otherwise without a cue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tff.analyses.ablation import Cue
from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.subject import Subject
from tff.plots import grouped
from tff.statistics.channel_tests import (
    benjamini_hochberg,
    cliffs_delta,
    delong_test,
    median_test,
    wilcoxon,
)
from tff.types import Floats, Ints, Result

Values = NDArray[np.float64] | NDArray[np.float32]


def compare_responses(labels: NDArray[np.int64], plain: Values, ablated: Values) -> pd.DataFrame:
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
    areas = delong_test(labels, np.nan_to_num(plain), np.nan_to_num(ablated))
    some = bool(fake.any())
    table = pd.DataFrame(
        {
            "p_value": median_test(a, b),
            "wilcoxon_p": wilcoxon(a, b),
            "cliffs_delta": cliffs_delta(b, a),
            "median": np.median(a, axis=0) if some else np.nan,
            "median_ablated": np.median(b, axis=0) if some else np.nan,
            "area": areas.auc_a,
            "area_ablated": areas.auc_b,
            "separation_p": areas.p,
        }
    )
    for name in ("p_value", "wilcoxon_p", "separation_p"):
        adjusted = {"p_value": "q_value"}.get(name, name.replace("_p", "_q"))
        table[adjusted] = benjamini_hochberg(table[name].to_numpy())
    lost = np.abs(table["area"] - 0.5) - np.abs(table["area_ablated"] - 0.5)
    return table.assign(area_lost=lost, loses=lost > 0)


def conditional_shares(tests: pd.DataFrame, alpha: float) -> dict[str, float]:
    """Which part of the channels is called conditional, by one way of testing after the other.

    `share` is the paper's; `share_corrected` with adjusted p-values; `share_paired` by the
    signed-rank test, adjusted; `share_separating` counts channels that tell generated from real
    images worse without the cue, adjusted.
    """
    if tests.empty:
        return dict.fromkeys(SHARE_LABELS, np.nan)
    return {
        "share": float((tests["p_value"] <= alpha).mean()),
        "share_corrected": float((tests["q_value"] <= alpha).mean()),
        "share_paired": float((tests["wilcoxon_q"] <= alpha).mean()),
        "share_separating": float(((tests["separation_q"] <= alpha) & tests["loses"]).mean()),
    }


#: In words.
SHARE_LABELS = {
    "share": "median test, as in the paper",
    "share_corrected": "median test, corrected",
    "share_paired": "paired test, corrected",
    "share_separating": "separates worse, corrected",
}


ABOUT = """
A channel responds somewhere in an image most strongly; this maximum is its response. If a channel
looks at {cue}, its responses to generated images must change when the {cue} is taken away. Mood's
median test compares the responses to the same images with and without {cue}; a channel with
p <= {alpha:g} is called {cue}-conditional, as in the paper.

That test has two weaknesses: p-values are not corrected for the number of channels, and it takes
the two samples for independent although they come from the same images. A paired test (Wilcoxon's,
with Benjamini and Hochberg's correction) has neither. But both ask only whether a response changes.
Nearly every filter responds to {cue} a little, in a detector that has learned nothing too; the
share among all channels shows it.

A stricter question is whether a channel tells generated from real images worse without {cue}.
DeLong's test on the area under its ROC curve, with and without {cue}, asks that. Where the images
of both kinds differ in nothing, no channel has anything to lose, and in at most {percent:g} % of
such cases any is found. It tells what a channel holds, not what the decision uses: where the images
differ in {cue}, filters that were never trained lose by it too. So look at the share among all
channels, and at AP without {cue}, beside it.
"""


@dataclass(frozen=True)
class MedianTest(Analysis):
    """Tests of the top channels and of all channels, and the cue-conditional shares.

    Args:
        ablation: what takes the cue away.
        alpha: largest p-value, or adjusted p-value, that counts.

    Raises:
        ValueError: alpha is no probability between 0 and 1.
    """

    needs_responses: ClassVar[bool] = True
    ablation: Cue
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(
                f"analysis.median_test.alpha={self.alpha}: must lie between 0 and 1; 5 percent is "
                "0.05"
            )

    def answer(self, subject: Subject) -> Result:
        """Tables `conditional_share`, `median_test` (top channels) and `median_test_all`."""
        cue = self.ablation.cue
        plain = subject.evaluate(None, responses=True)
        ablated = subject.evaluate(self.ablation, responses=True)
        assert plain.responses is not None
        assert ablated.responses is not None
        assert plain.sample is not None
        assert ablated.sample is not None
        names = subject.channels.table()
        top = names.iloc[subject.top.numpy()].reset_index(drop=True)
        rank = np.empty(len(names), np.int64)
        rank[subject.ranking.numpy()] = np.arange(1, len(names) + 1)
        tested, everything, counted = [], [], []
        densities: list[tuple[str, Floats, Floats]] = []
        for generator, at in subject.generators():
            first = {
                "generator": generator,
                "seen": generator in subject.seen,
                "cue": cue,
                "ablation": repr(self.ablation),
            }
            labels = subject.labels[at]
            mine = compare_responses(labels, plain.responses[at], ablated.responses[at])
            tested.append(_table(first, top, mine, labels))
            inside = np.isin(subject.sample, at)
            of_all = compare_responses(
                subject.labels[subject.sample[inside]],
                plain.sample[inside],
                ablated.sample[inside],
            )
            sampled = subject.labels[subject.sample[inside]]
            everything.append(_table(first, names.assign(rank=rank), of_all, sampled))
            rest = {f"{n}_of_all": v for n, v in conditional_shares(of_all, self.alpha).items()}
            counts = {
                "k": subject.k,
                **conditional_shares(mine, self.alpha),
                "area_lost": mine["area_lost"].mean(),
                **rest,
                "area_lost_of_all": of_all["area_lost"].mean(),
                "alpha": self.alpha,
            }
            counted.append(first | counts | {"images": int((labels == 1).sum())})
            if generator in subject.seen or not densities:
                fakes = at[labels == 1]
                a, b = plain.responses[fakes], ablated.responses[fakes]
                densities = [
                    (f"{row.layer} #{row.channel}", a[:, i], b[:, i])
                    for i, row in enumerate(top.head(6).itertuples())
                ]
        table = pd.concat(tested, ignore_index=True)
        result = Result(
            f"Which channels look at {cue}",
            ABOUT.format(cue=cue, alpha=self.alpha, percent=100 * self.alpha),
        )
        share = pd.DataFrame(counted)
        result.tables = {
            "conditional_share": share,
            "median_test": table,
            "median_test_all": pd.concat(everything, ignore_index=True),
        }
        self._tell(result, share, subject.k, cue)
        long = share.melt(["generator", "seen"], list(SHARE_LABELS), "test", "value")
        result.figures = {
            "conditional_share": grouped.grouped_points(
                long, "generator", "test", "value", None, None,
                f"share of the top {subject.k} channels", reference=self.alpha, labels=SHARE_LABELS,
            ),
            "responses": grouped.histograms(densities, ("as it is", f"without {cue}")),
        }  # fmt: skip
        result.captions = {
            "conditional_share": f"Share of the top channels that are {cue}-conditional, by four "
            "ways of testing; the dashed line is the rate of errors that each allows.",
            "responses": "Responses of the six strongest channels to generated images; dotted "
            "lines are medians.",
        }
        if table["images"].min() < 20:
            result.warnings.append(
                "Fewer than 20 generated images of a generator: the tests are weak."
            )
        return result

    @staticmethod
    def _tell(result: Result, share: pd.DataFrame, k: int, cue: str) -> None:
        mean = share.mean(numeric_only=True)
        result.findings = [
            f"{100 * mean['share']:.0f} % of the top {k} channels are {cue}-conditional by the "
            f"paper's median test (mean over generators; {100 * share['share'].min():.0f} to "
            f"{100 * share['share'].max():.0f}); of all channels it is "
            f"{100 * mean['share_of_all']:.0f} %.",
            f"{100 * mean['share_separating']:.0f} % of the top {k} tell generated from real "
            f"images worse without {cue} ({100 * share['share_separating'].min():.0f} to "
            f"{100 * share['share_separating'].max():.0f}); of all channels "
            f"{100 * mean['share_separating_of_all']:.0f} %. Their area under the ROC curve comes "
            f"nearer to 0.5 by {mean['area_lost']:.3f} on average (all channels: "
            f"{mean['area_lost_of_all']:.3f}).",
        ]
        names = [name for name in mean.index if name.startswith("share")]
        result.scalars = {f"conditional_{name}": float(mean[name]) for name in names}


def _table(
    first: dict[str, object], names: pd.DataFrame, tests: pd.DataFrame, labels: Ints
) -> pd.DataFrame:
    """Tests with the names of their channels."""
    counts = {"images": int((labels == 1).sum()), "images_real": int((labels == 0).sum())}
    constant = pd.DataFrame({**first, **counts}, index=tests.index)
    parts = [constant[list(first)], names.reset_index(drop=True), tests, constant[list(counts)]]
    return pd.concat(parts, axis=1)
