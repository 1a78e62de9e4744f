"""Mediation: the effect of a cue, such as color, on the decision through each channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtri, stdtrit

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.controls import Comparison, Controls
from tff.analyses.engine.evaluation import (
    Evaluator,
    evaluators,
    group_labels,
    split_generators,
)
from tff.analyses.engine.passes import CueRemoval
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import CRITERIA, TooFewImagesError
from tff.options import checked, number, whole
from tff.plots import curves, grouped
from tff.statistics.bootstrap import Estimate, count_draws, mean
from tff.statistics.channel_tests import median_test
from tff.statistics.rank_agreement import mean_overlap_within_groups, spearman
from tff.types import Floats, Ints, Result

ABOUT = """
The paper asks whether the response of a channel changes without {cue} ({cue}-conditional). Here the
question is whether the decision uses {cue} through the channel ({cue}-mediated). The detector sees
an image with {cue}, but the map of the channel is taken from the same image without {cue}; the
change of the logit is the effect of {cue} through this channel (activation patching). With the maps
of several channels exchanged at once, it is their joint effect; with all of them, it is the total
effect, as if the image had no {cue}.

The decision is measured by the gap between the mean logits of generated and of real images: a
change that moves both kinds alike does not help to tell them apart. A positive effect says that
{cue} widens the gap. Effects on each kind are in the tables. Where the interval of the total effect
contains 0, or comes near it, no share is given.

Channels are ordered by the size of an estimate on the validation images (attribution patching), and
effects are measured exactly on the test images, so that the choice of channels flatters none of
them. The estimate is a linear one, and off where the network bends. Effects of single
channels overlap, since {cue} flows through one channel after the other, and need not add up to the
total; their joint effect is measured instead. An exchanged map is out of its context, in which all
other channels still see {cue}.
"""


@dataclass(frozen=True)
@checked("analysis.mediation")
class Mediation(Analysis):
    """Total effect of a cue on the decision, and what the top channels mediate of it.

    Args:
        ablation: removes the cue.
        channels: number of channels whose effect is measured one by one.
        random_draws: number of sets of random channels in the layers of the top k.
        alpha: significance level of the paper's median test.
    """

    needs_responses: ClassVar[bool] = True
    ablation: CueRemoval
    channels: Annotated[int, whole(least=1)] = 20
    random_draws: Annotated[int, whole(least=2)] = 5
    alpha: Annotated[float, number(above=0, below=1, hint="; 5 percent is 0.05")] = 0.05

    def answer(self, subject: Subject) -> Result:
        """Tables `mediation`, `mediation_curve`, `mediation_channels` and `mediation_all`."""
        cue, k = self.ablation.cue, subject.k
        order = _order(subject, self.ablation)
        controls = Controls(subject.channels, torch.from_numpy(order), subject.seed)
        singles = order[: self.channels].tolist()
        choices = {f"top {n}": torch.from_numpy(order[:n]) for n in _sizes(len(order), k)}
        drawn = controls.matched(self.random_draws)
        choices |= {f"matched {i}": other[:k] for i, other in enumerate(drawn)}
        choices |= {"ranked": subject.top} | {f"channel {c}": torch.tensor([c]) for c in singles}
        plain, ablated = (subject.evaluate(c, responses=True) for c in (None, self.ablation))
        logits = {"plain": plain.logits, "ablated": ablated.logits}
        logits |= subject.evaluate_without_channels(choices, self.ablation)
        measured = {e.generator: mean_logits(e, logits) for e in evaluators(subject)}
        groups = _average_groups(subject, measured)
        first = {"cue": cue, "ablation": repr(self.ablation), "k": k}
        labels = group_labels(subject)
        rows = [
            {"generator": name, "seen": name in subject.seen} | first | _describe(of, k)
            for name, of in (measured | {labels[where]: of for where, of in groups.items()}).items()
        ]
        result = Result(f"Which channels carry the effect of {cue}", ABOUT.format(cue=cue))
        everything = self._all_channels(subject, order, plain.sample, ablated.sample)
        result.tables = {
            "mediation": pd.DataFrame(rows),
            "mediation_curve": _curve(groups, len(order), k),
            "mediation_channels": _single_channels(groups, everything, singles),
            "mediation_all": everything,
        }
        for where, of in groups.items():
            _add_findings(result, where, labels[where], of, cue, k, CRITERIA[subject.criterion])
        _compare_rankings(result, groups, subject, order, cue)
        _add_figures(result, cue, k)
        result.opening = ["mediation_curve"]
        return result

    def _all_channels(
        self, subject: Subject, order: Ints, plain: Any, ablated: Any
    ) -> pd.DataFrame:
        """Estimated effects of all channels beside omega and the paper's test, in their order.

        Args:
            order: (n_channels,) flat indices by effect.
            plain: (n, n_channels) responses to the sampled images.
            ablated: the same without the cue.
        """
        table = subject.channels.table()
        for name, ranking in (("position", order), ("rank", subject.ranking.numpy())):
            table[name] = np.argsort(ranking) + 1
        table["omega"] = subject.relevance["fake"].omega
        discovery = subject.attribute(self.ablation, "discovery")
        table["mediated"], table["mediated_error"] = discovery.gap(
            subject.images.discovery.generators
        )
        test = subject.attribute(self.ablation)
        for where, names in split_generators(subject, dict(subject.generators())).items():
            table[f"estimate_{where}"], table[f"estimate_{where}_error"] = test.gap(names)
        # On generated images of the seen generators, as in the paper.
        names = next(iter(split_generators(subject, dict(subject.generators())).values()), [])
        at = subject.images.test.manifest.iloc[subject.sample]
        rows = (at["generator"].isin(names) & (at["label"] == 1)).to_numpy()
        table["p_value"] = median_test(*(np.nan_to_num(r[rows]) for r in (plain, ablated)))
        table["conditional"] = table["p_value"] <= self.alpha
        return table.iloc[order].reset_index(drop=True)


@dataclass(frozen=True)
class MeanLogits:
    """Mean logits of generated and of real images.

    Attributes:
        fake: of generated ones.
        real: of real ones.
    """

    fake: Estimate
    real: Estimate

    @property
    def gap(self) -> Estimate:
        """By how much they lie apart."""
        return self.fake - self.real


def mean_logits(evaluator: Evaluator, logits: Mapping[str, Floats]) -> dict[str, MeanLogits]:
    """Mean logits of both kinds of images of one generator, with paired resamples.

    Resamples of n images vary less than means of n images do; their deviations are enlarged so that
    the interval of a mean is as wide as Student's.

    Args:
        logits: name -> (N,) of all test images.
    """
    drawn = count_draws(evaluator.resamples, len(evaluator.rows))
    values = np.stack([of[evaluator.rows] for of in logits.values()], axis=1)
    kinds = []
    for label in (1, 0):
        at = evaluator.labels == label
        n, weights = int(at.sum()), drawn[:, at].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # fewer than two images: NaN
            mean = values[at].sum(0) / np.float64(n)
            deviations = weights @ values[at] / weights.sum(1, keepdims=True) - mean
            wider = np.sqrt(n / np.float64(n - 1)) * stdtrit(n - 1, 0.975) / ndtri(0.975)
            kinds.append((mean, mean + wider * deviations))
    return {
        name: MeanLogits(*(Estimate(float(mean[i]), draws[:, i]) for mean, draws in kinds))
        for i, name in enumerate(logits)
    }


def is_found(effect: Estimate) -> bool:
    """Whether the interval of an effect excludes 0."""
    low, high = effect.interval
    return low > 0 or high < 0


def ratio(part: Estimate, total: Estimate) -> Estimate:
    """Share of a part in a total, on each resample.

    Undefined if the total is known to less than half of itself: the share could be nearly anything.
    """
    nearest = max(total.low, -total.high)  # the end that is nearer to 0; negative on its far side
    if not nearest >= abs(total.value) / 2 > 0:
        return Estimate(np.nan, np.full(len(part.draws), np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        return Estimate(part.value / total.value, part.draws / total.draws)


def _order(subject: Subject, ablation: CueRemoval) -> Ints:
    """Flat indices of all channels, (n_channels,), by the size of their effect.

    Raises:
        TooFewImagesError: the discovery images lack one kind.
    """
    generators = subject.images.discovery.generators
    found = subject.attribute(ablation, "discovery")
    effects = found.gap(generators)[0] if generators else np.full(1, np.nan)
    if np.isnan(effects).any():
        raise TooFewImagesError(
            f"effects of {ablation.cue}: the images on which channels are ranked lack generated or "
            "real ones; add some of each kind to the validation images"
        )
    return np.argsort(-np.abs(effects), kind="stable")


def _sizes(total: int, k: int) -> list[int]:
    """Numbers of channels that are exchanged together, ascending: 1, 3, 10, ... and k."""
    steps = [n * 10**power for power in range(8) for n in (1, 3)]
    return sorted({k} | {n for n in steps if n <= total // 2 and not k / 2 < n < 2 * k})


def _average_groups(
    subject: Subject, measured: Mapping[str, dict[str, MeanLogits]]
) -> dict[str, dict[str, MeanLogits]]:
    """Means over seen and over unseen generators that have images of both kinds."""
    groups: dict[str, dict[str, MeanLogits]] = {}
    for where, names in split_generators(subject, dict(subject.generators())).items():
        parts = [measured[name] for name in names]
        known = [part for part in parts if not np.isnan(part["plain"].gap.value)]
        if known:
            groups[where] = {
                name: MeanLogits(
                    mean([part[name].fake for part in known]),
                    mean([part[name].real for part in known]),
                )
                for name in known[0]
            }
    return groups


def _matched(of: Mapping[str, MeanLogits]) -> list[Estimate]:
    """Gaps with the maps of each set of matched channels exchanged."""
    return [found.gap for name, found in of.items() if name.startswith("matched ")]


def _effect(of: Mapping[str, MeanLogits], name: str) -> Estimate:
    """Effect of the cue on the gap through a choice of channels."""
    return of["plain"].gap - of[name].gap


def _describe(of: Mapping[str, MeanLogits], k: int) -> dict[str, float]:
    """Columns of the table `mediation`."""
    plain, ablated, total = of["plain"], of["ablated"], _effect(of, "ablated")
    parts = {
        "": _effect(of, f"top {k}"),
        "_by_ranked": _effect(of, "ranked"),
        "_by_matched": plain.gap - mean(_matched(of)),
    }
    columns = {
        "gap": plain.gap,
        "total": total,
        "total_fake": plain.fake - ablated.fake,
        "total_real": plain.real - ablated.real,
        **{f"mediated{name}": part for name, part in parts.items()},
        **{f"share{name}": ratio(part, total) for name, part in parts.items()},
    }
    more = Comparison.of(of[f"top {k}"].gap, _matched(of))
    return {
        column: value
        for name, estimate in columns.items()
        for column, value in estimate.columns(name).items()
    } | more.columns("more_than_matched")


def _curve(groups: Mapping[str, Mapping[str, MeanLogits]], n: int, k: int) -> pd.DataFrame:
    """Joint effect of the first channels of the order, and of matched ones."""
    rows: list[dict[str, object]] = []
    for where, of in groups.items():
        total = _effect(of, "ablated")
        points = [("top", 0, _effect(of, "plain"))]
        points += [
            ("top", int(name.removeprefix("top ")), _effect(of, name))
            for name in of
            if name.startswith("top ")
        ]
        # All maps exchanged leave nothing of the image itself.
        points += [("top", n, total), ("matched", k, of["plain"].gap - mean(_matched(of)))]
        for choice, channels, effect in points:
            first = {"where": where, "choice": choice, "channels": channels, "part": channels / n}
            rows.append(first | effect.columns("effect") | ratio(effect, total).columns("share"))
    return pd.DataFrame(rows)


_OF_CHANNEL = (
    "position", "layer", "channel", "kind", "rank", "omega", "p_value", "conditional", "mediated",
    "mediated_error",
)  # fmt: skip


def _single_channels(
    groups: Mapping[str, Mapping[str, MeanLogits]], everything: pd.DataFrame, singles: list[int]
) -> pd.DataFrame:
    """Exact effects of single channels beside their estimates, a row per channel and group."""
    rows: list[dict[str, Any]] = []
    for position, flat in enumerate(singles):
        known: dict[str, Any] = dict(everything.iloc[position])
        first = {name: known[name] for name in _OF_CHANNEL if name in known}
        for where, of in groups.items():
            estimates = {
                "estimate": known[f"estimate_{where}"],
                "estimate_error": known[f"estimate_{where}_error"],
            }
            exact, plain = of[f"channel {flat}"], of["plain"]
            rows.append(
                {"where": where, **first, **estimates}
                | (plain.gap - exact.gap).columns("exact")
                | (plain.fake - exact.fake).columns("exact_fake")
            )
    return pd.DataFrame(rows)


_SHOWN = 12  # channels in a figure
_SHARES = ("share", "share_by_matched", "share_by_ranked")


def _describe_kind(of: Mapping[str, MeanLogits], kind: str) -> str:
    """Effect on the mean logit of one kind of images, with its sign; empty if there is none."""
    effect: Estimate = getattr(of["plain"], kind) - getattr(of["ablated"], kind)
    return f"{effect.value:+.2f}" if is_found(effect) else ""


def _add_findings(
    result: Result,
    where: str,
    group: str,
    of: Mapping[str, MeanLogits],
    cue: str,
    k: int,
    criterion: str,
) -> None:
    """Findings and scalars of a group of generators with that name."""
    columns, draws = _describe(of, k), len(_matched(of))
    result.scalars |= {
        f"{where}_{name}": columns[name] for name in ("gap", "total", "mediated", "share")
    }
    more = Comparison.of(of[f"top {k}"].gap, _matched(of), lower=columns["total"] > 0)
    place, (gap, total) = f"On {group}", (columns["gap"], columns["total"])
    interval = f"({columns['total_low']:.2f} to {columns['total_high']:.2f})"
    apart = "the mean logits of generated and real images differ by"
    shares = [f"{100 * columns[name]:.0f} %" for name in _SHARES]
    if np.isnan(columns["total_low"]):
        text = f"{place}, there are too few images to tell whether the decision uses {cue}."
    elif columns["total_low"] == columns["total_high"] == 0:
        text = f"{place}, the logits are the same with and without {cue}: its effect is 0."
    elif is_found(_effect(of, "ablated")):
        helps = f"{cue} accounts for {total:.2f} {interval} of the decision"
        harms = f"{cue} works against the decision, by {total:.2f} {interval}"
        text = (
            f"{place}, {helps if total > 0 else harms}: {apart} {gap:.2f} with it and by "
            f"{gap - total:.2f} without it."
        )
        if np.isnan(columns["share"]):
            text += " The effect is too small, or too uncertain, to be shared out among channels."
        else:
            text += (
                f" {shares[0]} ({100 * columns['share_low']:.0f} to "
                f"{100 * columns['share_high']:.0f}) of this effect flows through the {k} channels "
                f"with the largest effects: {more.verdict()} of the same layers ({shares[1]}, mean "
                f"of {draws} draws). {shares[2]} flows through the top {k} by {criterion}."
            )
    else:
        text = (
            f"{place}, no effect of {cue} on the decision is found: {apart} {gap:.2f} with it and "
            f"by {gap - total:.2f} without it, and the interval of the effect {interval} contains "
            "0. So there is nothing to share out among channels."
        )
        fake, real = (_describe_kind(of, kind) for kind in ("fake", "real"))
        if fake and real and (fake[0] == real[0]):
            text += f" It moves both kinds alike: generated images by {fake}, real ones by {real}."
    result.findings.append(text)


def _compare_rankings(
    result: Result, groups: Mapping[str, Mapping[str, MeanLogits]], subject: Subject, order: Ints,
    cue: str,
) -> None:  # fmt: skip
    """Agreement of the order by effect with the subject's ranking and with the paper's test."""
    table, k = result.tables["mediation_all"], subject.k
    size = table["mediated"].abs().to_numpy()
    shared = len(np.intersect1d(order[:k], subject.top.numpy()))
    agreement = {
        "spearman_omega": spearman(size, table["omega"].to_numpy()),
        "spearman_median_test": spearman(size, -table["p_value"].to_numpy()),
        "conditional_of_top": float(table["conditional"][:k].mean()),
        "conditional_of_all": float(table["conditional"].mean()),
    }
    singles = result.tables["mediation_channels"]
    for where, part in singles.groupby("where", sort=False):
        agreement[f"spearman_exact_{where}"] = spearman(
            part["estimate"].to_numpy(), part["exact"].to_numpy()
        )
    result.scalars |= agreement
    totals = [_effect(of, "ablated") for of in groups.values()]
    if not any(is_found(total) for total in totals):
        return
    kinds = subject.channels.kind_numbers
    ks, ranking = np.array([k]), subject.ranking.numpy()
    expected = mean_overlap_within_groups(ks, order, ranking, kinds)[0]
    result.findings.append(
        f"Of the {k} channels with the largest effects, "
        f"{100 * agreement['conditional_of_top']:.0f} % are {cue}-conditional by the paper's "
        f"median test; of all channels, {100 * agreement['conditional_of_all']:.0f} %. The top "
        f"{k} by {CRITERIA[subject.criterion]} hold {shared} of the {k} (by chance "
        f"{expected:.1f}). Over all channels, the size of the effect and omega have a rank "
        f"correlation of {agreement['spearman_omega']:+.2f}."
    )


def _add_figures(result: Result, cue: str, k: int) -> None:
    """Joint effect against the number of channels, and effects of single channels."""
    curve = result.tables["mediation_curve"]
    labels: dict[str, str] = {
        f"{choice} {where}": f"{text}{where}"
        for choice, text in (("top", ""), ("matched", "random ones, "))
        for where in ("seen", "unseen")
    }
    curve = curve.assign(line=curve["choice"] + " " + curve["where"])
    single = result.tables["mediation_channels"]
    names = single["layer"] + " #" + single["channel"].astype(str)
    points = single.assign(name=names, line=single["where"])[single["position"] <= _SHOWN]
    first = points.drop_duplicates("name").assign(line="estimate", exact=lambda t: t["mediated"])
    reach = 1.96 * first["mediated_error"]
    first = first.assign(exact_low=first["exact"] - reach, exact_high=first["exact"] + reach)
    result.figures = {
        "mediation_curve": curves.dropout_curves(
            curve, "channels", "line", "effect", "channels whose maps are exchanged",
            f"effect of {cue} on the gap, logits", labels,
        ),
        "mediation_channels": grouped.grouped_points(
            pd.concat([points, first]), "name", "line", "exact", "exact_low", "exact_high",
            f"effect of {cue} on the gap, logits", reference=0,
            labels={
                "estimate": "estimate, validation images", "seen": "seen generators",
                "unseen": "unseen generators",
            },
        ),
    }  # fmt: skip
    result.captions = {
        "mediation_curve": f"Effect of {cue} through the first channels by effect, all at once; "
        f"with all channels it is the total effect. Single marks: {k} random channels of the same "
        "layers. Bands are 95 % intervals.",
        "mediation_channels": "Effects through the first channels, one at a time, measured on the "
        "test images beside the estimate by which they were chosen. Whiskers are 95 % intervals.",
    }
