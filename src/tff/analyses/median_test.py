"""Which channels respond to a cue, and for which of them it matters to the decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from tff.analyses.ablation import Cue
from tff.analyses.base import Analysis
from tff.analyses.channel_tests import SHARES, channel_tests, shares
from tff.analyses.records import Floats, Rows
from tff.analyses.subject import Subject
from tff.plots import grouped
from tff.types import Result

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
            mine = channel_tests(labels, plain.responses[at], ablated.responses[at])
            tested.append(_table(first, top, mine, labels))
            inside = np.isin(subject.sample, at)
            of_all = channel_tests(
                subject.labels[subject.sample[inside]],
                plain.sample[inside],
                ablated.sample[inside],
            )
            sampled = subject.labels[subject.sample[inside]]
            everything.append(_table(first, names.assign(rank=rank), of_all, sampled))
            rest = {f"{n}_of_all": v for n, v in shares(of_all, self.alpha).items()}
            counts = {
                "k": subject.k, **shares(mine, self.alpha), "area_lost": mine["area_lost"].mean(),
                **rest, "area_lost_of_all": of_all["area_lost"].mean(), "alpha": self.alpha,
            }  # fmt: skip
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
        long = share.melt(["generator", "seen"], list(SHARES), "test", "value")
        result.figures = {
            "conditional_share": grouped.grouped(
                long, "generator", "test", "value", None, None,
                f"share of the top {subject.k} channels", reference=self.alpha, labels=SHARES,
            ),
            "responses": grouped.densities(densities, ("as it is", f"without {cue}")),
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
    first: dict[str, object], names: pd.DataFrame, tests: pd.DataFrame, labels: Rows
) -> pd.DataFrame:
    """Tests with the names of their channels."""
    counts = {"images": int((labels == 1).sum()), "images_real": int((labels == 0).sum())}
    constant = pd.DataFrame({**first, **counts}, index=tests.index)
    parts = [constant[list(first)], names.reset_index(drop=True), tests, constant[list(counts)]]
    return pd.concat(parts, axis=1)
