"""Median test: channels that respond differently without a cue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import Scores, describe_drop, evaluators
from tff.analyses.engine.passes import CueRemoval
from tff.analyses.engine.subject import Subject
from tff.options import checked, number
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, mean
from tff.statistics.channel_tests import (
    benjamini_hochberg,
    cliffs_delta,
    delong_test,
    median_test,
    wilcoxon,
)
from tff.types import Floats, Ints, Result

ABOUT = """
The response of a channel to an image is the maximum of its feature map{tokens}. If a
channel responds to {cue}, its responses to generated images must change when {cue} is removed.
Mood's median test compares the responses to the same images with and without {cue}; a channel with
p <= {alpha:g} is called {cue}-conditional, as in the paper.

That test has two weaknesses: its p-values are not corrected for the number of channels, and it
assumes independent samples although both come from the same images. A paired test (Wilcoxon's, with
Benjamini and Hochberg's correction) has neither. But both ask only whether a response changes.
Nearly every filter responds to {cue} a little, even in a detector that has learned nothing; the
share among all channels shows it.

A stricter question is how well a channel separates generated from real images without {cue}.
DeLong's test compares the areas under the channel's ROC curve with and without {cue}. A channel
loses if its area moves towards 0.5, gains if it moves away from 0.5, and turns if it lies
significantly on the other side of 0.5: what was higher on generated images is then higher on real
ones. Where the images of both kinds do not differ at all, no channel has anything to lose, and in
at most {percent:g} % of such cases any channel is called losing. These tests tell what a channel
holds, not what the decision uses: where the images differ in {cue}, filters that were never trained
lose by its removal too. So look at the share among all channels, and at what AP does, as well.
"""
TOKENS = (
    ", of a neuron or an attention head that over tokens (for a head of the length of its output)"
)
#: Column of `conditional_share` -> the test behind it.
SHARE_LABELS = {
    "share": "median test, as in the paper",
    "share_corrected": "median test, corrected",
    "share_paired": "paired test, corrected",
    "share_losing": "separates worse, corrected",
    "share_gaining": "separates better, corrected",
    "share_turning": "separates the other way round, corrected",
}
#: Fewer generated images of a generator make the tests weak.
FEW = 20

Responses = Floats | NDArray[np.float32]


@dataclass(frozen=True)
@checked("analysis.median_test")
class MedianTest(Analysis):
    """Tests of the top channels and of all channels, and the cue-conditional shares.

    Args:
        ablation: removes the cue.
        alpha: significance level, of p-values and of adjusted p-values.
        mediated: whether tables also hold `mediated` and `mediated_error`, the effect of the cue on
            the decision through the channel, which takes one more pass; see
            `engine.attribution.Attribution.gap`.
    """

    needs_responses: ClassVar[bool] = True
    ablation: CueRemoval
    alpha: Annotated[float, number(above=0, below=1, hint="; 5 percent is 0.05")] = 0.05
    mediated: bool = False

    def answer(self, subject: Subject) -> Result:
        """Tables `conditional_share`, `median_test` (top channels) and `median_test_all`."""
        cue = self.ablation.cue
        plain = subject.evaluate(None, responses=True)
        ablated = subject.evaluate(self.ablation, responses=True)
        assert plain.responses is not None
        assert ablated.responses is not None
        assert plain.sample is not None
        assert ablated.sample is not None
        channels = subject.channels.table()
        top = channels.iloc[subject.top.numpy()].reset_index(drop=True)
        rank = np.empty(len(channels), np.int64)
        rank[subject.ranking.numpy()] = np.arange(1, len(channels) + 1)
        channels["rank"] = rank
        effects = subject.attribute(self.ablation) if self.mediated else None
        shares: list[dict[str, object]] = []
        top_tests, all_tests = [], []
        examples: list[tuple[str, Floats, Floats]] = []
        scores = [Scores.of(subject, found.logits) for found in (plain, ablated)]
        aps: list[tuple[Estimate, Estimate]] = []
        for evaluator in evaluators(subject):
            rows, labels = evaluator.rows, evaluator.labels
            first = {
                "generator": evaluator.generator,
                "seen": evaluator.seen,
                "cue": cue,
                "ablation": repr(self.ablation),
            }
            before, after = (evaluator.measure(of)["ap"] for of in scores)
            aps.append((before, after))
            of_top = compare_responses(labels, plain.responses[rows], ablated.responses[rows])
            inside = np.isin(subject.sample, rows)
            sampled = subject.labels[subject.sample[inside]]
            of_all = compare_responses(sampled, plain.sample[inside], ablated.sample[inside])
            if effects:
                of_all["mediated"], of_all["mediated_error"] = effects.gap([evaluator.generator])
                columns = ["mediated", "mediated_error"]
                of_top[columns] = of_all[columns].to_numpy()[subject.top.numpy()]
            top_tests.append(_table(first, top, of_top, labels))
            all_tests.append(_table(first, channels, of_all, sampled))
            among_all = conditional_shares(of_all, self.alpha)
            shares.append(
                {
                    **first,
                    "k": subject.k,
                    **conditional_shares(of_top, self.alpha),
                    "area_lost": of_top["area_lost"].mean(),
                    **{f"{name}_of_all": share for name, share in among_all.items()},
                    "area_lost_of_all": of_all["area_lost"].mean(),
                    **before.columns("ap"),
                    **after.columns("ap_ablated"),
                    **(before - after).columns("ap_drop"),
                    "alpha": self.alpha,
                    "images": int((labels == 1).sum()),
                }
            )
            if evaluator.seen or not examples:
                fake = rows[labels == 1]
                examples = [
                    (f"{row.layer} #{row.channel}", plain.responses[fake, i],
                     ablated.responses[fake, i])
                    for i, row in enumerate(top.head(6).itertuples())
                ]  # fmt: skip
        table, share = pd.concat(top_tests, ignore_index=True), pd.DataFrame(shares)
        result = Result(
            f"Which channels respond to {cue}",
            ABOUT.format(
                cue=cue,
                alpha=self.alpha,
                percent=100 * self.alpha,
                tokens=TOKENS if subject.channels.kinds else "",
            ),
        )
        result.tables = {
            "conditional_share": share,
            "median_test": table,
            "median_test_all": pd.concat(all_tests, ignore_index=True),
        }
        _add_findings(result, share, subject.k, cue, *(mean(of) for of in zip(*aps, strict=True)))
        points = share.melt(["generator", "seen"], list(SHARE_LABELS), "test", "value")
        result.figures = {
            "conditional_share": grouped.grouped_points(
                points, "generator", "test", "value", None, None,
                f"share of the top {subject.k} channels", reference=self.alpha, labels=SHARE_LABELS,
            ),
            "responses": grouped.histograms(examples, ("unchanged", f"without {cue}")),
        }  # fmt: skip
        result.captions = {
            "conditional_share": f"Share of the top channels that are {cue}-conditional by "
            f"{len(SHARE_LABELS)} tests; the dashed line is the error rate that each allows.",
            "responses": "Responses of the six strongest channels to generated images; dotted "
            "lines are medians.",
        }
        if table["images"].min() < FEW:
            result.warnings.append(
                f"Fewer than {FEW} generated images of a generator: the tests are weak."
            )
        return result


def _table(
    first: dict[str, Any], channels: pd.DataFrame, tests: pd.DataFrame, labels: Ints
) -> pd.DataFrame:
    """Tests with the names of their channels, one row per channel."""
    table = pd.concat([channels, tests], axis=1)
    for position, (name, value) in enumerate(first.items()):
        table.insert(position, name, value)
    return table.assign(images=int((labels == 1).sum()), images_real=int((labels == 0).sum()))


def _add_findings(
    result: Result, share: pd.DataFrame, k: int, cue: str, ap: Estimate, ablated: Estimate
) -> None:
    """Findings and scalars; `ap` and `ablated` are means over generators."""
    means = share.mean(numeric_only=True)
    shares = means[means.index.str.startswith("share")]
    percent = {name: f"{100 * value:.0f} %" for name, value in shares.items()}
    known = np.isfinite([ap.value, ablated.value]).all()
    itself = f" AP of the detector itself, {ap.value:.3f}, {describe_drop(ap - ablated)}."
    result.findings = [
        f"{percent['share']} of the top {k} channels are {cue}-conditional by the "
        f"paper's median test (mean over generators; {100 * share['share'].min():.0f} to "
        f"{100 * share['share'].max():.0f}); of all channels it is {percent['share_of_all']}.",
        f"Without {cue}, {percent['share_losing']} of the top {k} separate generated from real "
        f"images worse, {percent['share_gaining']} better, and {percent['share_turning']} the "
        f"other way round (all channels: {percent['share_losing_of_all']}, "
        f"{percent['share_gaining_of_all']} and {percent['share_turning_of_all']})."
        + (itself if known else ""),
    ]
    result.scalars = {f"conditional_{name}": float(value) for name, value in shares.items()}


def compare_responses(labels: Ints, plain: Responses, ablated: Responses) -> pd.DataFrame:
    """Tests of each channel's responses with and without a cue, one row per channel.

    Columns on generated images: `p_value` and `q_value` of Mood's median test (the paper's,
    which assumes independent samples), `wilcoxon_p` and `wilcoxon_q` of the signed-rank test on the
    same images, `cliffs_delta` (how far the responses move, -1 to 1), `median`, `median_ablated`.

    Columns on both kinds: `area` and `area_ablated`, how well the channel separates generated from
    real images (area under the ROC curve; 0.5: not at all); `separation_p` and `separation_q` of
    DeLong's test that both areas are equal; `area_lost`, by how much the area moves towards 0.5,
    and `loses`, whether it does; `strength_p` and `strength_q` of the test that both are equally
    far from 0.5; `turning_p` and `turning_q` of the test that they do not lie on different sides
    of 0.5.

    All `q` are adjusted for the number of channels (Benjamini and Hochberg, 1995).

    Args:
        labels: (n,) 1 generated, 0 real.
        plain: (n, C) responses to the unchanged images.
        ablated: (n, C) responses to the same images without the cue.
    """
    # A network that overflows gives NaN, which carries no information.
    fake = labels == 1
    a, b = (np.nan_to_num(values[fake].astype(np.float64)) for values in (plain, ablated))
    areas = delong_test(labels, np.nan_to_num(plain), np.nan_to_num(ablated))
    known = bool(fake.any())
    table = pd.DataFrame(
        {
            "p_value": median_test(a, b),
            "wilcoxon_p": wilcoxon(a, b),
            "cliffs_delta": cliffs_delta(b, a),
            "median": np.median(a, axis=0) if known else np.nan,
            "median_ablated": np.median(b, axis=0) if known else np.nan,
            "area": areas.auc_a,
            "area_ablated": areas.auc_b,
            "separation_p": areas.p,
            "strength_p": areas.p_strength,
            "turning_p": areas.p_turn,
        }
    )
    for name in ("value", "wilcoxon", "separation", "strength", "turning"):
        p, q = ("p_value", "q_value") if name == "value" else (f"{name}_p", f"{name}_q")
        table[q] = benjamini_hochberg(table[p].to_numpy())
    lost = np.abs(table["area"] - 0.5) - np.abs(table["area_ablated"] - 0.5)
    return table.assign(area_lost=lost, loses=lost > 0)


def conditional_shares(tests: pd.DataFrame, alpha: float) -> dict[str, float]:
    """Share of cue-conditional channels by each test, from `compare_responses`; NaN without any.

    Keys are those of `SHARE_LABELS`. `share_losing` and `share_gaining` count channels whose area
    is significantly nearer to 0.5, or farther from it, without the cue; `share_turning` those whose
    areas lie significantly on different sides of 0.5, which neither of the other two counts. And
    `share_separating`, as in version 0.1: channels with a significantly different area that is
    nearer to 0.5 without the cue, whether or not it is on the same side.
    """
    turns = tests["turning_q"] <= alpha
    changes = (tests["strength_q"] <= alpha) & ~turns
    chosen = {
        "share": tests["p_value"] <= alpha,
        "share_corrected": tests["q_value"] <= alpha,
        "share_paired": tests["wilcoxon_q"] <= alpha,
        "share_losing": changes & tests["loses"],
        "share_gaining": changes & ~tests["loses"],
        "share_turning": turns,
        "share_separating": (tests["separation_q"] <= alpha) & tests["loses"],
    }
    return {name: float(of.mean()) for name, of in chosen.items()}
