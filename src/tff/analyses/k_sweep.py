"""Does the ranking find the channels that matter? AP against the number of channels dropped."""

from __future__ import annotations

from dataclasses import dataclass

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
from tff.analyses.engine.subject import CRITERIA, Subject, channel_counts
from tff.data.dataset import Images
from tff.plots import curves
from tff.statistics.bootstrap import Estimate, mean, mean_height, shortfall
from tff.types import Result

ABOUT = """
A ranking is right if the detector needs the channels that it names first. Channels are dropped in
the order of several rankings, more and more of them, and AP is measured each time: the sooner it
falls, the better a ranking knows what the detector looks for. The mean height of each curve between
nothing and the largest share is one number for a ranking (area); less is better, and the random
order is what a ranking must beat. Differences from it are taken image by image; their intervals
hold the chance of the orders as well as that of the images, so that one more random order would be
called better or worse in one case of twenty.

Omega is the paper's; lift is omega times the width of the layer, so that narrow layers have no
advantage; gradient x activation is the change of the logit to first order; mean response and norm
of the filter know nothing of the decision.
"""
#: What stands in place of a channel, in words.
INSTEAD = {
    "zero": "zero before BatchNorm, as in the paper",
    "mean": "its mean over the discovery images",
    "resample": "its map from another image, drawn at random",
}


@dataclass(frozen=True)
class KSweep(Analysis):
    """AP with the first k channels of several rankings dropped, for several k.

    Args:
        rankings: of `criteria.CRITERIA`.
        shares: of all channels, in percent, that are dropped; nothing dropped is always there.
        instead: what stands in place of a channel, of `INSTEAD`, one or several.
        random_orders: how many random orders `random` is the mean of.

    Raises:
        ValueError: an option has an unknown value.
    """

    rankings: tuple[str, ...] = tuple(CRITERIA)
    shares: tuple[float, ...] = (0.1, 0.2, 0.43, 1, 2, 5, 10)
    instead: tuple[str, ...] = ("zero",)
    random_orders: int = 5

    def __post_init__(self) -> None:
        for option, values, known in (
            ("rankings", self.rankings, CRITERIA),
            ("instead", self.instead, INSTEAD),
        ):
            if isinstance(values, str):
                raise ValueError(
                    f"analysis.k_sweep.{option}={values}: expected a list, such as [{values}]"
                )
            if not values or (unknown := set(values) - set(known)):
                odd = ", ".join(sorted(unknown)) if values else "nothing"
                raise ValueError(
                    f"analysis.k_sweep.{option}: {odd}; expected some of {', '.join(known)}"
                )
            if len(set(values)) < len(values):
                raise ValueError(
                    f"analysis.k_sweep.{option}={list(values)}: name each of them once"
                )
        if not self.shares or not all(0 < share <= 100 for share in self.shares):
            raise ValueError(
                f"analysis.k_sweep.shares={list(self.shares)}: expected percents of all channels, "
                "above 0 and at most 100"
            )
        if self.random_orders < 1:
            raise ValueError(
                f"analysis.k_sweep.random_orders={self.random_orders}: must be at least 1"
            )

    def answer(self, subject: Subject) -> Result:
        """Tables `k_sweep`, a point of a curve a row, and `k_sweep_area`, a curve a row."""
        total = len(subject.channels)
        ks = channel_counts(self.shares, total)
        xs = [k / total for k in (0, *ks)]
        points: list[dict[str, object]] = []
        areas: list[dict[str, object]] = []
        for instead in self.instead:
            for where, curve in self._measured(subject, ks, instead).items():
                heights = {
                    by: [mean_height(xs, aps) for aps in orders] for by, orders in curve.items()
                }
                for by, orders in curve.items():
                    first = {"where": where, "ranking": by, "instead": instead}
                    points += [
                        # The mean AP: the mean of the probabilities would do better than any order.
                        {**first, "k": k, "share": x, **mean(aps).columns("ap")}
                        for k, x, aps in zip((0, *ks), xs, zip(*orders, strict=True), strict=True)
                    ]
                    height = mean(heights[by])
                    under = {}
                    if by != "random" and "random" in heights:
                        under = shortfall(height, heights["random"]).columns("below_random")
                    areas.append({**first, "up_to_share": xs[-1], **height.columns("area")} | under)
        table, by_area = pd.DataFrame(points), pd.DataFrame(areas)
        result = Result("Does the ranking find the channels that matter?", ABOUT)
        result.tables = {"k_sweep_area": by_area, "k_sweep": table}
        self._tell(result, by_area)
        for instead in self.instead:
            for where in table["where"].unique():
                part = table[(table["where"] == where) & (table["instead"] == instead)]
                name = f"k_sweep_{where}" + (f"_{instead}" if len(self.instead) > 1 else "")
                result.figures[name] = curves.dropout_curves(
                    part, "share", "ranking", "ap", "channels dropped, percent of all",
                    "average precision", CRITERIA,
                )  # fmt: skip
                result.captions[name] = (
                    f"AP on {GROUPS[where]} against the share of channels dropped; in their place: "
                    f"{INSTEAD[instead]}. Bands are 95 % intervals."
                )
        return result

    def _measured(
        self, subject: Subject, ks: list[int], instead: str
    ) -> dict[str, dict[str, list[list[Estimate]]]]:
        """Where (seen, unseen) -> ranking -> of each of its orders AP for each k (0 first)."""
        orders = {
            (by, i): subject.rank(by, seed=subject.seed + i)
            for by in self.rankings
            for i in range(self.random_orders if by == "random" else 1)
        }
        choices = {f"{by} {i} {k}": o[:k] for (by, i), o in orders.items() for k in ks}
        logits = subject.evaluate_dropped(choices, self._instead(subject, instead))
        whole = Scores.of(subject, subject.evaluate().logits)
        scores = {name: Scores.of(subject, of_choice) for name, of_choice in logits.items()}
        judged = {evaluator.generator: evaluator for evaluator in evaluators(subject)}
        undisturbed = {name: evaluator.measure(whole)["ap"] for name, evaluator in judged.items()}
        found: dict[str, dict[str, list[list[Estimate]]]] = {}
        for by, i in orders:
            curve = [undisturbed] + [
                {
                    name: evaluator.measure(scores[f"{by} {i} {k}"])["ap"]
                    for name, evaluator in judged.items()
                }
                for k in ks
            ]
            points = [summarize_generators(subject, aps) for aps in curve]
            for where in [w for w in points[0] if w != "unseen_worst"]:
                aps = [point[where] for point in points]
                found.setdefault(where, {}).setdefault(by, []).append(aps)
        return found

    @staticmethod
    def _instead(subject: Subject, instead: str) -> Tensor | Images | None:
        if instead == "mean":
            return torch.from_numpy(subject.activity.output)
        if instead == "resample":
            return subject.replacement_images()
        return None

    @staticmethod
    def _tell(result: Result, areas: pd.DataFrame) -> None:
        for (where, instead), part in areas.groupby(["where", "instead"], sort=False):
            best = part.sort_values("area").iloc[0]
            text = (
                f"On {GROUPS[str(where)]}, AP falls soonest by {CRITERIA[best['ranking']]}: mean "
            )
            text += f"AP {best['area']:.3f} ({best['area_low']:.3f} to {best['area_high']:.3f})"
            omega = part[part["ranking"] == "omega"]
            if len(omega) and "below_random" in part:
                low, high = omega[["below_random_low", "below_random_high"]].to_numpy()[0]
                own, by = omega[["area", "below_random"]].to_numpy()[0]
                text += (
                    f"; by omega it is {own:.3f}, below random orders by {by:+.3f} "
                    f"({low:+.3f} to {high:+.3f}): {describe_difference(low, high)}"
                )
            result.findings.append(f"{text} (in place of a channel: {INSTEAD[str(instead)]}).")
        names = areas[["where", "ranking", "instead"]].agg("_area_".join, axis=1)
        result.scalars = dict(zip(names, areas["area"].astype(float), strict=True))
