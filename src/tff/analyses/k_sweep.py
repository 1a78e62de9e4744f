"""AP against the number of channels dropped: does a ranking find the channels that matter?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import torch
from torch import Tensor

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import (
    GROUPS,
    Scores,
    describe_difference,
    evaluators,
    summarize_generators,
)
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import CRITERIA, channel_counts
from tff.data.dataset import Images
from tff.options import checked, each, number, some_of, whole
from tff.plots import curves
from tff.statistics.bootstrap import Estimate, mean, mean_height, shortfall
from tff.types import Result

ABOUT = """
A ranking is right if the detector needs the channels that it puts first. Channels are dropped in
the order of several rankings, more and more of them, and AP is measured each time: the sooner it
falls, the better the ranking. The mean height of each curve, between nothing and the largest share
dropped, sums up a ranking in one number (area); lower is better, and a ranking must beat the random
order. Differences from it are paired by image; their intervals cover the variation of the random
orders as well as that of the images, so that one more random order would differ significantly in
one case of twenty.

Omega is the paper's criterion; lift is omega times the width of the layer, so that narrow layers
have no advantage; gradient x activation is the change of the logit to first order; mean response
and norm of the filter ignore the decision.
"""
#: Replacements of a dropped channel.
REPLACEMENTS = {
    "zero": "zero before BatchNorm, as in the paper",
    "mean": "its mean over the discovery images",
    "resample": "its map from another image, drawn at random",
}
#: Group of generators -> criterion -> for each of its orders, AP at each number of channels.
Curves = dict[str, dict[str, list[list[Estimate]]]]


@dataclass(frozen=True)
@checked("analysis.k_sweep")
class KSweep(Analysis):
    """AP with the first k channels of several rankings dropped, for several k.

    Args:
        rankings: criteria, see `engine.top_channels.CRITERIA`.
        shares: numbers of dropped channels, in percent of all; AP with none dropped is always
            measured too.
        instead: replacements of dropped channels, some of `REPLACEMENTS`.
        random_orders: number of random orders that the curve `random` averages.
    """

    rankings: Annotated[Sequence[str], some_of(CRITERIA)] = tuple(CRITERIA)
    shares: Annotated[
        Sequence[float],
        each(number(above=0, most=100, hint=", percent of all channels"), at_least_one=True),
    ] = (0.1, 0.2, 0.43, 1, 2, 5, 10)
    instead: Annotated[Sequence[str], some_of(REPLACEMENTS)] = ("zero",)
    random_orders: Annotated[int, whole(least=1)] = 5

    def answer(self, subject: Subject) -> Result:
        """Tables `k_sweep`, one row per point of a curve, and `k_sweep_area`, one per curve."""
        total = len(subject.channels)
        ks = [0, *channel_counts(self.shares, total)]
        shares = [k / total for k in ks]
        points: list[dict[str, object]] = []
        areas: list[dict[str, object]] = []
        for instead in self.instead:
            for where, of_ranking in self._measure(subject, ks, instead).items():
                heights = {
                    by: [mean_height(shares, aps) for aps in orders]
                    for by, orders in of_ranking.items()
                }
                for by, orders in of_ranking.items():
                    first = {"where": where, "ranking": by, "instead": instead}
                    points += [
                        # The mean AP: the mean of the probabilities would do better than any order.
                        {**first, "k": k, "share": share, **mean(aps).columns("ap")}
                        for k, share, aps in zip(ks, shares, zip(*orders, strict=True), strict=True)
                    ]
                    height = mean(heights[by])
                    area = {**first, "up_to_share": shares[-1], **height.columns("area")}
                    if by != "random" and "random" in heights:
                        area |= shortfall(height, heights["random"]).columns("below_random")
                    areas.append(area)
        table, area_table = pd.DataFrame(points), pd.DataFrame(areas)
        result = Result("Does the ranking find the channels that matter?", ABOUT)
        result.tables = {"k_sweep_area": area_table, "k_sweep": table}
        _add_findings(result, area_table)
        for instead in self.instead:
            for where in table["where"].unique():
                part = table[(table["where"] == where) & (table["instead"] == instead)]
                name = f"k_sweep_{where}" + (f"_{instead}" if len(self.instead) > 1 else "")
                result.figures[name] = curves.dropout_curves(
                    part, "share", "ranking", "ap", "channels dropped, percent of all",
                    "average precision", CRITERIA,
                )  # fmt: skip
                result.captions[name] = (
                    f"AP on {GROUPS[where]} against the share of channels dropped; replaced by "
                    f"{REPLACEMENTS[instead]}. Bands are 95 % intervals."
                )
        return result

    def _measure(self, subject: Subject, ks: list[int], instead: str) -> Curves:
        """AP with the first k channels of every order dropped; `ks` begins with 0."""
        orders = {
            (by, i): subject.rank(by, seed=subject.seed + i)
            for by in self.rankings
            for i in range(self.random_orders if by == "random" else 1)
        }
        choices = {
            f"{by} {i} {k}": order[:k] for (by, i), order in orders.items() for k in ks if k > 0
        }
        logits = subject.evaluate_without_channels(choices, _replacement(subject, instead))
        scores = {name: Scores.of(subject, values) for name, values in logits.items()}
        plain = Scores.of(subject, subject.evaluate().logits)
        each_generator = list(evaluators(subject))

        def summarize(scores: Scores) -> dict[str, Estimate]:
            aps = {e.generator: e.measure(scores)["ap"] for e in each_generator}
            return summarize_generators(subject, aps)

        undropped = summarize(plain)
        found: Curves = {}
        for by, i in orders:
            points = [summarize(scores[f"{by} {i} {k}"]) if k else undropped for k in ks]
            for where in [where for where in undropped if where != "unseen_worst"]:
                curve = [point[where] for point in points]
                found.setdefault(where, {}).setdefault(by, []).append(curve)
        return found


def _replacement(subject: Subject, instead: str) -> Tensor | Images | None:
    """Replacement of dropped channels, for `Subject.evaluate_without_channels`; None: zero."""
    if instead == "mean":
        return torch.from_numpy(subject.activity.output)
    if instead == "resample":
        return subject.draw_replacements()
    return None


def _add_findings(result: Result, areas: pd.DataFrame) -> None:
    """Findings and scalars."""
    for (where, instead), part in areas.groupby(["where", "instead"], sort=False):
        best = part.sort_values("area").iloc[0]
        text = (
            f"On {GROUPS[str(where)]}, AP falls soonest by {CRITERIA[best['ranking']]}: mean AP "
            f"{best['area']:.3f} ({best['area_low']:.3f} to {best['area_high']:.3f})"
        )
        omega = part[part["ranking"] == "omega"]
        if len(omega) and "below_random" in part:
            low, high = omega[["below_random_low", "below_random_high"]].to_numpy()[0]
            own, by = omega[["area", "below_random"]].to_numpy()[0]
            text += (
                f"; by omega it is {own:.3f}, below random orders by {by:+.3f} "
                f"({low:+.3f} to {high:+.3f}): {describe_difference(low, high)}"
            )
        result.findings.append(f"{text} (channels replaced by {REPLACEMENTS[str(instead)]}).")
    names = areas[["where", "ranking", "instead"]].agg("_area_".join, axis=1)
    result.scalars = dict(zip(names, areas["area"].astype(float), strict=True))
