"""Which of the top channels respond to a cue: Mood's median test for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from tff.analyses.ablation import Cue
from tff.analyses.base import Analysis
from tff.analyses.passes import Floats
from tff.analyses.subject import Subject
from tff.plots import comparison, distributions
from tff.statistics.median import median_test
from tff.types import Result

ABOUT = """
A channel responds somewhere in an image most strongly; this maximum is its response. If a channel
looks at {cue}, its responses to generated images must change when the {cue} is taken away. Mood's
median test compares the responses to the same images with and without {cue}; a channel with
p <= {alpha:g} is called {cue}-conditional.

As in the paper, p-values are not corrected for the number of channels, and the test takes the two
samples for independent although they come from the same images. A channel that does not look at
{cue} at all is still called conditional in up to {percent:g} of 100 cases.
"""


@dataclass(frozen=True)
class MedianTest(Analysis):
    """p-value of each top channel and generator, and the cue-conditional share of the channels.

    Args:
        ablation: what takes the cue away.
        alpha: largest p-value that counts.
    """

    needs_responses: ClassVar[bool] = True
    ablation: Cue
    alpha: float = 0.05

    def answer(self, subject: Subject) -> Result:
        """Tables `median_test`, a row for each generator and channel, and `conditional_share`."""
        cue = self.ablation.cue
        plain = subject.evaluate(None, responses=True).responses
        ablated = subject.evaluate(self.ablation, responses=True).responses
        assert plain is not None
        assert ablated is not None
        top = subject.channels.table().iloc[subject.top.numpy()].reset_index(drop=True)
        tables: list[pd.DataFrame] = []
        densities: list[tuple[str, Floats, Floats]] = []
        for generator, at in subject.generators():
            fakes = at[subject.labels[at] == 1]
            a, b = plain[fakes], ablated[fakes]
            rows = top.assign(
                generator=generator,
                seen=generator in subject.seen,
                cue=cue,
                p_value=median_test(a, b),
                median=np.median(a, axis=0) if len(a) else np.nan,
                median_ablated=np.median(b, axis=0) if len(b) else np.nan,
                images=len(fakes),
            )
            tables.append(rows)
            if generator in subject.seen or not densities:
                densities = [
                    (f"{row.layer} #{row.channel}", a[:, i], b[:, i])
                    for i, row in enumerate(top.head(6).itertuples())
                ]
        table = pd.concat(tables, ignore_index=True)
        first = ["generator", "seen", "cue", "layer", "channel", "p_value"]
        table = table[first + [c for c in table if c not in first]]
        shares = self._shares(table, subject.k, cue)
        mean = float(shares["share"].mean())
        result = Result(f"Which of them look at {cue}: the median test", ABOUT.format(
            cue=cue, alpha=self.alpha, percent=100 * self.alpha))  # fmt: skip
        result.findings = [
            f"{100 * mean:.0f} % of the top {subject.k} channels are {cue}-conditional (mean over "
            f"generators; {100 * shares['share'].min():.0f} to {100 * shares['share'].max():.0f})."
        ]
        result.scalars = {"conditional_share": mean}
        result.tables = {"conditional_share": shares, "median_test": table}
        result.figures = {
            "conditional_share": comparison.shares(shares, self.alpha),
            "responses": distributions.densities(densities, ("as it is", f"without {cue}")),
        }
        result.captions = {
            "conditional_share": f"Share of the top channels that respond to {cue}.",
            "responses": "Responses of the six strongest channels to generated images; dotted "
            "lines are medians.",
        }
        if table["images"].min() < 20:
            result.warnings.append(
                "Fewer than 20 generated images of a generator: the test is weak."
            )
        return result

    def _shares(self, table: pd.DataFrame, k: int, cue: str) -> pd.DataFrame:
        """The cue-conditional share of each generator, in the order of the table."""
        groups = table.groupby("generator", sort=False)
        shares = groups["p_value"].agg(lambda p: float((p <= self.alpha).mean()))
        return pd.DataFrame(
            {
                "generator": shares.index,
                "seen": groups["seen"].first().to_numpy(),
                "cue": cue,
                "k": k,
                "share": shares.to_numpy(),
                "alpha": self.alpha,
                "images": groups["images"].first().to_numpy(),
            }
        )
