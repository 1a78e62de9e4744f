"""AP against the number of channels dropped: does a ranking find the channels that matter?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from torch import Tensor

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.controls import Comparison, Controls, describe_draws
from tff.analyses.engine.evaluation import (
    Scores,
    describe_resamples,
    evaluators,
    group_labels,
    summarize_generators,
)
from tff.analyses.engine.passes import Instead
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import (
    COUNT,
    CRITERIA,
    evenly_spaced_counts,
    parse_k,
)
from tff.options import PATH, checked, each, number, some_of, whole
from tff.plots import curves
from tff.report.results import read_results
from tff.statistics.bootstrap import Estimate, mean, mean_height, shortfall
from tff.types import Floats, Result

ABOUT = """
A ranking is right if the detector needs the channels that it puts first. Channels are dropped in
the order of several rankings, more and more of them, and AP is measured each time: the sooner it
falls, the better the ranking. Some layers matter more than others, whichever of their channels are
dropped. So each ranking is compared with random orders that have as many channels in each layer
(matched): the ranking itself with the channels of every layer shuffled.

The score of a ranking is the mean distance of its curve from that of its matched orders, over
numbers of channels on a logarithmic scale, from 1 to the largest: the step from 1 channel to 2
counts as much as that from 100 to 200. On a linear scale, numbers at which no detector is left
would make up most of it. Positive is better. The score has two intervals: that of the distance from
the *average* matched order, and the wider one of the distance from *one more* such order, which
excludes 0 for one ranking in twenty that means nothing. Both are paired by image.

With `insert`, channels are not dropped but kept: all others are replaced by their mean, and the
sooner AP rises, the better the ranking.

Omega of generated images is the paper's criterion; omega of real images finds what they have and
generated ones lack. Lift is omega times the width of the layer, so that narrow layers have no
advantage. Contrast and effect are changes to first order when a channel is dropped: of the gap
between both kinds of images, and of the logit. Mean response and norm of the filter ignore the
decision.
"""
#: What happens to channels.
REPLACEMENTS = {
    "zero": "zero before BatchNorm, as in the paper",
    "mean": "its mean over the discovery images",
    "resample": "its map from another image, drawn at random",
    "insert": "its mean, in all channels but these",
}
_ZERO_OF_TOKENS = "zero, neurons before their activation"
_SHORT = {
    "zero": "dropped",
    "mean": "replaced by their means",
    "resample": "replaced by their maps from other images",
    "insert": "kept",
}
#: Titles of panels, and criteria without what stands in brackets.
_TITLES = {"seen": "seen", "unseen": "never seen (mean)"}
SHORT = {by: words.partition(" (")[0] for by, words in CRITERIA.items()}


@dataclass(frozen=True)
class Curves:
    """AP on one group of generators with the first channels of a ranking dropped, or kept.

    Attributes:
        own: for each order of the ranking (several if it is random), AP at each number of channels.
        matched: the same for random orders matched in layer; none for a random ranking.
        lower: whether lower is better: channels are dropped, not kept.
        among: number of rankings that this one was chosen from.
    """

    own: list[list[Estimate]]
    matched: list[list[Estimate]]
    lower: bool
    among: int

    def at(self, i: int) -> dict[str, float]:
        """Columns of the i-th number of channels."""
        own, drawn = ([order[i] for order in orders] for orders in (self.own, self.matched))
        columns = describe_draws(own, "ap")
        if drawn:
            columns |= describe_draws(drawn, "matched")
            columns |= Comparison.of(own[0], drawn, self.lower, self.among).columns(
                "beats_matched_by"
            )
        return columns

    def score(self, ks: Sequence[int]) -> Comparison:
        """Mean distance from the matched orders over ks on a logarithmic scale; 0 is left out."""

        def height(order: list[Estimate]) -> Estimate:
            return mean_height(np.log(ks[1:]).tolist(), order[1:]) if len(ks) > 2 else order[1]

        drawn = [height(order) for order in self.matched]
        return Comparison.of(height(self.own[0]), drawn, self.lower, self.among)


@dataclass(frozen=True)
@checked("analysis.k_sweep")
class KSweep(Analysis):
    """AP with the first k channels of several rankings dropped, for several k.

    Args:
        rankings: criteria, see `engine.top_channels.CRITERIA`.
        ks: numbers of dropped channels, each a number or a share of all (`2%`). None, and no
            `shares`: ten from 1 channel to 20 %, evenly spaced on a logarithmic scale. AP with none
            dropped is always measured too.
        shares: more of them, in percent of all.
        instead: replacements of dropped channels, some of `REPLACEMENTS`.
        random_orders: number of random orders that the curve `random` averages, and of orders
            matched in layer for each other ranking.
        beside: folder of a run whose report has a `k_sweep` too, of another detector: its curves
            are drawn beside these. None: no other.
    """

    rankings: Annotated[Sequence[str], some_of(CRITERIA)] = tuple(CRITERIA)
    ks: Annotated[Sequence[int | str], each(COUNT, at_least_one=True)] | None = None
    shares: (
        Annotated[
            Sequence[float],
            each(number(above=0, most=100, hint=", percent of all channels"), at_least_one=True),
        ]
        | None
    ) = None
    instead: Annotated[Sequence[str], some_of(REPLACEMENTS)] = ("zero",)
    random_orders: Annotated[int, whole(least=1)] = 10
    beside: Annotated[str, PATH] | None = None

    def answer(self, subject: Subject) -> Result:
        """Tables `k_sweep`, one row per point of a curve, and `k_sweep_area`, one per curve."""
        usable, missing = subject.usable_criteria(self.rankings)
        if missing:
            result = replace(self, rankings=usable).answer(subject)
            result.warnings += missing
            return result
        total, ks = len(subject.channels), self._counts(subject)
        labels = group_labels(subject)
        own = subject.criterion
        points: list[dict[str, object]] = []
        areas: list[dict[str, object]] = []
        result = Result("Does the ranking find the channels that matter?", ABOUT)
        for instead in self.instead:
            for where, of_ranking in self._measure(subject, ks, instead).items():
                scores: dict[str, Comparison] = {}
                for by, found in of_ranking.items():
                    first: dict[str, object] = {"where": where, "ranking": by, "instead": instead}
                    points += [
                        first | {"k": k, "share": k / total} | found.at(i) for i, k in enumerate(ks)
                    ]
                    area = _area(ks, total, found, of_ranking.get("random"))
                    if found.matched:
                        scores[by] = found.score(ks)
                        area |= scores[by].columns("beats_matched_by")
                    areas.append(first | {"up_to_share": ks[-1] / total} | area)
                result.findings += _describe(scores, labels[where], instead, ks, own)
        table, area_table = pd.DataFrame(points), pd.DataFrame(areas)
        result.tables = {"k_sweep_area": area_table, "k_sweep": table}
        for row in area_table.to_dict("records"):
            where, by, instead = row["where"], row["ranking"], row["instead"]
            result.scalars[f"{where}_area_{by}_area_{instead}"] = row["area"]
            if by != "random":
                name = f"{where}_beats_matched_by_{by}_{instead}"
                result.scalars[name] = row["beats_matched_by"]
        words = REPLACEMENTS | ({"zero": _ZERO_OF_TOKENS} if subject.channels.kinds else {})
        others = _read_beside(self.beside) if self.beside else []
        if others:
            shown = table[table["instead"] == self.instead[0]]
            mine = [
                curves.Panel(_TITLES[str(where)], part, _share_generated(subject, str(where)))
                for where, part in shown.groupby("where", sort=False)
            ]
            result.figures["drop_curves"] = curves.dropout_panels([*mine, *others], SHORT, own)
            result.captions["drop_curves"] = (
                "AP against the number of channels dropped, for several rankings; the same colors "
                f"in all panels. On the right the detector of {Path(str(self.beside)).name}, which "
                "was trained on other images. Gray: random channels of the same layers. Dotted: a "
                f"detector that guesses. {describe_resamples(subject)}"
            )
        for instead, where in product(self.instead, () if others else table["where"].unique()):
            part = table[(table["where"] == where) & (table["instead"] == instead)]
            name = f"k_sweep_{where}" + (f"_{instead}" if len(self.instead) > 1 else "")
            compared = [by for by in (own, *self.rankings) if by in self.rankings]
            compared = [by for by in compared if by != "random"][:1]
            verb = "kept" if instead == "insert" else "dropped"
            result.figures[name] = curves.dropout_curves(
                part, "k", "ranking", "ap", f"channels {verb}, of {total:,}", "average precision",
                CRITERIA, part[part["ranking"].isin(compared)], _share_generated(subject, where),
            )  # fmt: skip
            result.captions[name] = (
                f"AP on {labels[where]} against the number of channels {verb}; replaced by "
                f"{words[instead]}. Bands are 95 % intervals. "
                f"{describe_resamples(subject)}"
            )
        result.opening = [*result.figures]
        return result

    def _counts(self, subject: Subject) -> list[int]:
        """Numbers of channels, ascending, 0 first."""
        total = len(subject.channels)
        given = [*(self.ks or ()), *(f"{share:.9f}%" for share in self.shares or ())]
        counts = [parse_k(k, total, option="analysis.k_sweep.ks") for k in given]
        return sorted({0, *(counts or evenly_spaced_counts(total))})

    def _measure(
        self, subject: Subject, ks: list[int], instead: str
    ) -> dict[str, dict[str, Curves]]:
        """Group of generators -> criterion -> AP with the first ks[i] channels of every order.

        Args:
            ks: numbers of channels; the first one is 0.
            instead: one of `REPLACEMENTS`.
        """
        orders: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
        for by in self.rankings:
            if by == "random":
                seeds = range(subject.seed, subject.seed + self.random_orders)
                orders[by] = [subject.rank(by, seed=seed) for seed in seeds], []
            else:
                ranking = subject.rank(by)
                controls = Controls(subject.channels, ranking, subject.seed)
                orders[by] = [ranking], controls.matched(self.random_orders)
        choices: dict[str, Tensor] = {}
        names: dict[bytes, str] = {}

        def choose(what: str, order: Tensor, k: int) -> str:
            """Name of the choice of channels to drop; equal sets of channels are one choice."""
            flat = (order[k:] if instead == "insert" else order[:k]).sort().values
            name = names.setdefault(flat.numpy().tobytes(), f"{what}, {k}")
            choices[name] = flat
            return name

        named = {
            by: [
                [
                    [choose(f"{by} {what}{i}", order, k) for k in ks]
                    for i, order in enumerate(several)
                ]
                for what, several in zip(("", "matched "), of, strict=True)
            ]
            for by, of in orders.items()
        }
        plain = choices.pop(names.get(b"", ""), None) is not None
        logits = subject.evaluate_without_channels(choices, _replacement(subject, instead))
        if plain:
            logits[names[b""]] = subject.evaluate().logits
        groups, lower = _summarize(subject, logits), instead != "insert"

        def curves_of(by: str, aps: Mapping[str, Estimate]) -> Curves:
            own, matched = ([[aps[n] for n in line] for line in lines] for lines in named[by])
            among = subject.among if by == subject.criterion else 1
            return Curves(own, matched, lower, among)

        return {where: {by: curves_of(by, aps) for by in named} for where, aps in groups.items()}


def _summarize(subject: Subject, logits: Mapping[str, Floats]) -> dict[str, dict[str, Estimate]]:
    """Group of generators, `seen` or `unseen` -> choice of channels -> AP."""
    each_generator = list(evaluators(subject))
    groups: dict[str, dict[str, Estimate]] = {}
    for name, values in logits.items():
        scores = Scores.of(subject, values)
        aps = {e.generator: e.measure(scores)["ap"] for e in each_generator}
        for where, ap in summarize_generators(subject, aps).items():
            if where != "unseen_worst":
                groups.setdefault(where, {})[name] = ap
    return groups


def _read_beside(run: str) -> list[curves.Panel]:
    """Curves in the report of another run, on the generator that its detector has seen.

    Raises:
        ValueError: there is no report with a `k_sweep`, or its table is damaged.
    """
    folder = Path(run).expanduser()
    columns = {"where": str, "ranking": str, "instead": str, "k": int}
    optional = dict.fromkeys(("ap", "ap_low", "ap_high"), float)
    bands = dict.fromkeys(("matched", "matched_low", "matched_high"), float)
    table = read_results(folder / "report").table("k_sweep", columns | optional, bands)
    if table is None:
        raise ValueError(
            f"analysis.k_sweep.beside={run}: there is no report with a k_sweep; pass the folder of "
            "a run of analyze.py with analysis=k_sweep"
        )
    shown = table[(table["where"] == "seen") & (table["instead"] == table["instead"].iloc[0])]
    return [curves.Panel(folder.name, shown, None)] if len(shown) else []


def _share_generated(subject: Subject, where: str) -> float:
    """AP of a detector that guesses, the mean over a group of generators."""
    named = [(name in subject.seen, rows) for name, rows in subject.generators()]
    shares = [subject.labels[rows].mean() for seen, rows in named if seen is (where == "seen")]
    return float(np.mean(shares))


def _area(ks: list[int], total: int, found: Curves, random: Curves | None) -> dict[str, float]:
    """Mean AP up to the largest share of channels, and how far it lies below random orders."""
    shares = [k / total for k in ks]
    height = mean([mean_height(shares, order) for order in found.own])
    columns = height.columns("area")
    if random and found is not random:
        drawn = [mean_height(shares, order) for order in random.own]
        columns |= shortfall(height, drawn).columns("below_random")
    return columns


def _replacement(subject: Subject, instead: str) -> Instead:
    """Replacement of dropped channels, for `Subject.evaluate_without_channels`; None: zero."""
    if instead in ("mean", "insert"):
        return subject.activity.means(subject.channels)
    if instead == "resample":
        return subject.draw_replacements()
    return None


def _describe(
    scores: Mapping[str, Comparison], group: str, instead: str, ks: list[int], own: str
) -> list[str]:
    """Findings on one group of generators.

    Args:
        scores: of each ranking.
        group: its name.
        own: the ranking behind the top k of the report, chosen before the sweep.
    """
    verb = "keep" if instead == "insert" else "cost"
    start = f"On {group}, over {ks[1]:,} to {ks[-1]:,} channels {_SHORT[instead]}"
    found = []
    if own in scores:
        of_own = scores[own].describe(f"the first by {CRITERIA[own]} {verb}")
        found.append(f"{start}, {of_own}: {scores[own].verdict()}.")
    others = {by: score for by, score in scores.items() if by != own}
    if others:
        order = sorted(others, key=lambda by: -others[by].from_one.value)
        better = [SHORT[by] for by in order if others[by].from_one.low > 0]
        listed = ", ".join(f"{SHORT[by]} {others[by].from_one.value:+.3f}" for by in order)
        found.append(
            f"{start}, the other rankings have scores of {listed}; significantly better than "
            f"random orders matched in layer: {', '.join(better) or 'none'}. Each ranking is "
            "judged alone: of 40 that mean nothing, one would pass."
        )
    return found
