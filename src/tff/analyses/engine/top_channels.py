"""Top channels: criteria by which channels are ranked, and the number of channels taken."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.analyses.engine.passes import Activity, Relevance
from tff.options import Allowed, checked, one_of
from tff.statistics.resampled_means import DRAWS, RESAMPLES
from tff.types import KINDS, Channels, Floats, Ints

#: Criteria by which channels can be ranked, in the words of legends.
CRITERIA = {
    "omega": "omega of generated images (FF-RS)",
    "omega_real": "omega of real images",
    "both": "the larger of the two omegas",
    "lift": "lift (omega times layer width)",
    "contrast": "contrast (gradient x activation, generated minus real)",
    "contrast_abs": "contrast, whatever its sign",
    "greedy": "greedy contrast (computed anew after each removal)",
    "effect": "effect (mean |gradient x activation|, generated images)",
    "effect_all": "effect on both kinds of images",
    "response": "mean response",
    "weight": "norm of the filter",
    "random": "random",
}
#: Those among which `auto` chooses.
CHOICES = tuple(by for by in CRITERIA if by != "random")
#: Criteria that need a pass of relevance, and the kinds of images over which their omega is a mean.
#: The others, but for `greedy` and `random`, need a pass of activity.
OMEGA_OF = {
    "omega": ("fake",), "lift": ("fake",), "omega_real": ("real",), "both": ("fake", "real"),
}  # fmt: skip
#: What a channel speaks for if its omega is larger on images of a kind.
SIDES = {"fake": "added trace", "real": "missing detail"}
Duplicates = Literal["mark", "merge"]
Baseline = Literal["zero", "mean"]


@dataclass(frozen=True)
@checked("subject.ranking")
class RankingRule:
    """How channels are ranked.

    Args:
        by: one of `CRITERIA`; or `auto`, the one whose top k channels cost most AP on the discovery
            images.
        duplicates: see `rank_channels`.
        baseline: what a dropped channel is thought to be replaced by in `contrast`.
    """

    by: Annotated[str, one_of([*CRITERIA, "auto"])] = "omega"
    duplicates: Duplicates = "mark"
    baseline: Baseline = "zero"


class TooFewImagesError(ValueError):
    """A statistic has no images to be computed from."""


@dataclass(frozen=True)
class Evidence:
    """What scores of channels are computed from.

    Args:
        relevance: gives relevance over `fake` and `real` images; called only if needed, since it
            takes a pass over the images.
        activity: gives the activity of the channels; likewise.
        removal: gives the place of each channel by `greedy`; likewise. None: unknown.
        widths: (n_channels,) width of the layer of each channel.
        baseline: see `RankingRule`.
        seed: of the random order.
    """

    relevance: Callable[[], Mapping[str, Relevance]]
    activity: Callable[[], Activity]
    widths: Ints
    baseline: Baseline = "zero"
    seed: int = 0
    removal: Callable[[], Floats] | None = None

    def score(self, by: str) -> Floats:
        """Score of each channel by one of `CRITERIA`, (n_channels,); higher ranks first.

        omega and omega_real: FF-RS over generated and over real images. both: the larger of the
        two, since a detector may go by traces that generated images have and real ones lack, or by
        details that real images have and generated ones lack; both are shares of the relevance of a
        layer, so they can be compared. lift: omega times the width of the layer; shares of a layer
        add up to 1 whatever its width, so omega favors narrow layers. greedy: see
        `Passes.compute_removal_order`. The others: see `Activity`.

        Raises:
            ValueError: the criterion is unknown.
            TooFewImagesError: there are no images to compute it from.
        """
        one_of(CRITERIA).require("subject.ranking.by", by)
        if by == "random":
            return np.random.default_rng(self.seed).random(len(self.widths))
        if by == "greedy":
            scores = self.removal() if self.removal else np.full(len(self.widths), np.nan)
        else:
            scores = self._from_relevance(by) if by in OMEGA_OF else self._from_activity(by)
        if np.isnan(scores).all():
            raise TooFewImagesError(
                f"subject.ranking.by={by}: the discovery images give no score; it needs "
                + ("real images that the detector recognizes with P <= 1 - subject.confidence"
                   if by == "omega_real" else "images of both kinds")
            )  # fmt: skip
        return scores

    def resample(self, i: int) -> Evidence:
        """The same from a resample of the images; the order of removal is not known there."""
        return replace(
            self,
            removal=None,
            relevance=lambda: {kind: r.resample(i) for kind, r in self.relevance().items()},
            activity=lambda: self.activity().resample(i),
        )

    def _from_relevance(self, by: str) -> Floats:
        found = self.relevance()
        if by == "both":
            return np.fmax(found["fake"].omega, found["real"].omega)
        omega = found["real" if by == "omega_real" else "fake"].omega
        return omega * self.widths if by == "lift" else omega

    def _from_activity(self, by: str) -> Floats:
        found = self.activity()
        if not by.startswith("contrast"):
            scores: Floats = getattr(found, by)
            return scores
        contrast = found.contrast
        if self.baseline == "mean":
            contrast = contrast - found.output * found.slope_contrast
        return np.abs(contrast) if by == "contrast_abs" else contrast


@dataclass(frozen=True)
class Stability:
    """How a ranking changes with the images that it was made from.

    Attributes:
        error: (n_channels,) standard error of each score; NaN if unknown.
        in_top: (n_channels,) share of the resamples in which the channel is among the top k.
        halves: share of the top k that two disjoint halves of the images have in common.
        chance: what two random rankings would have in common on average: k / n_channels, if all
            channels are of one kind.
    """

    error: Floats
    in_top: Floats
    halves: float
    chance: float


def assess_stability(
    evidence: Evidence,
    by: str,
    twins: Tensor,
    rule: RankingRule,
    k: int,
    kinds: Kinds | None = None,
) -> Stability:
    """Stability of a ranking by one of `CRITERIA`, over resamples of the images.

    Args:
        twins: see `rank_channels`.
        rule: of the ranking.
        k: number of top channels.
        kinds: see `rank_channels`.
    """
    scores = np.stack([_score_or_nan(evidence.resample(i), by) for i in range(RESAMPLES)])
    tops = np.zeros(scores.shape)
    for top, score in zip(tops, scores, strict=True):
        top[rank_channels(score, twins, rule.duplicates, kinds)[:k].numpy()] = 1
    chance = k / len(twins) if kinds is None else kinds.chance(tops[0] == 1)
    tops[np.isnan(scores).all(1)] = np.nan
    halves = float(tops[DRAWS:].prod(0).sum() / k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no resample has images
        error = np.nanstd(scores[:DRAWS], axis=0, ddof=1)
        in_top = np.nanmean(tops[:DRAWS], axis=0)
    return Stability(error, in_top, halves, chance)


def _score_or_nan(evidence: Evidence, by: str) -> Floats:
    try:
        return evidence.score(by)
    except TooFewImagesError:
        return np.full(len(evidence.widths), np.nan)


@dataclass(frozen=True)
class Kinds:
    """How the rankings of several kinds of channels are merged.

    Attributes:
        numbers: (n_channels,) number of the kind of each channel.
        first: number of a kind -> how many of its channels rank before all others, in the same
            proportion at each place; kinds that are missing rank behind these. None: the first k
            hold the same share of each kind, for every k.
    """

    numbers: Ints
    first: Mapping[int, int] | None = None

    def places(self, kind: int, size: int) -> Floats:
        """Where the channels of a kind go, best first, (size,); lower is earlier."""
        within = np.arange(size) + 0.5
        if self.first is None:
            return within / size
        first = self.first.get(kind, 0)
        behind = 1 + (within - first) / max(size - first, 1)
        return np.where(within < first, within / max(first, 1), behind)

    def chance(self, top: NDArray[np.bool_]) -> float:
        """Share of the top that two random rankings have in common on average.

        Args:
            top: (n_channels,) which channels are among the top.
        """
        share_of_kind = pd.Series(top).groupby(self.numbers).transform("mean")
        return float(share_of_kind[top].mean())


def rank_channels(
    scores: Floats, twins: Tensor, duplicates: Duplicates = "mark", kinds: Kinds | None = None
) -> Tensor:
    """Flat indices of all channels, (n_channels,), best first; ties keep the network's order.

    Scores of different kinds do not compare: a layer has 6 heads, and 1,536 neurons between which
    it divides its relevance. Each kind is ranked by itself, and the rankings are merged.

    Args:
        scores: (n_channels,).
        twins: for each channel the earlier channel that it repeats, or -1; see
            `detectors.feature_maps.depthwise_twins`.
        duplicates: `mark` ranks both by their own scores; `merge` gives the earlier one the larger
            of the two scores and ranks the later one behind all other channels.
        kinds: how those of several kinds are merged; None: all are of one kind.
    """
    values, later = scores.astype(np.float64), np.zeros(len(scores), bool)
    if duplicates == "merge":
        earlier, values = twins.numpy(), values.copy()
        later = earlier >= 0
        first = np.arange(len(values))
        while (earlier[first] >= 0).any():  # the channel that one repeats may repeat another
            first = np.where(earlier[first] >= 0, earlier[first], first)
        np.fmax.at(values, first[later], values[later])
    # NaN (a channel without any value) sorts behind all numbers; `lexsort` keeps ties in order.
    order = np.lexsort((-values, later))
    if kinds is None:
        return torch.from_numpy(order)
    places = np.empty(len(values))
    for kind in np.unique(kinds.numbers).tolist():
        same = order[kinds.numbers[order] == kind]
        places[same] = kinds.places(kind, len(same))
    return torch.from_numpy(order[np.argsort(places[order], kind="stable")])


def _is_k(k: int | str | Mapping[str, int | str]) -> bool:
    if isinstance(k, Mapping):
        return len(k) > 0 and all(kind in KINDS and COUNT.allows(one) for kind, one in k.items())
    text = str(k).replace(" ", "")
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if share:
        return 0 < float(share[1]) <= 100
    return text == "auto" or (not isinstance(k, bool | float) and int(text) >= 1)


#: Allowed values of the option `k`.
K = Allowed(
    _is_k,
    "a whole number of at least 1, a share above 0% and at most 100%, auto, or such a number or "
    "share for each of some kinds, as OPTION='{heads: 5, neurons: 1%}'",
)
#: Allowed numbers of channels.
COUNT = Allowed(
    lambda k: not isinstance(k, Mapping) and _is_k(k) and k != "auto",
    "a whole number of at least 1, or a share above 0% and at most 100%",
)


def parse_k(
    k: int | str | None, total: int, fraction: float = 0, option: str = "subject.k"
) -> int | None:
    """Number of top channels from `114`, `0.43%` or None (the paper's share); None for `auto`.

    A share of the `total` is rounded, and is at least one channel.

    Args:
        k: the value of an option.
        total: number of channels.
        fraction: the paper's share.
        option: its name, for messages.

    Raises:
        ValueError: k is none of these, or not between 1 and the total.
    """
    if k == "auto":
        return None
    text = str(k).replace(" ", "")
    if k is None:
        return max(1, round(fraction * total))
    if re.fullmatch(r"\d+", text):
        number = int(text)
    elif re.fullmatch(r"\d+(\.\d+)?%", text):
        share = float(text[:-1]) / 100
        number = max(1, round(share * total)) if share else 0
    else:
        raise ValueError(f"{option}={k}: expected a number, a share such as 0.43%, or auto")
    if not 0 < number <= total:
        raise ValueError(f"{option}={k}: must lie between 1 and the number of channels, {total}")
    return number


def parse_k_of_kinds(k: Mapping[str, int | str], channels: Channels) -> dict[int, int]:
    """Number of each kind in `KINDS` -> number of top channels, from `{heads: 5, neurons: 1%}`.

    Raises:
        ValueError: the detector has no channels of a kind, or too few.
    """
    sizes = np.bincount(channels.kind_numbers, minlength=len(KINDS))
    for kind in k:
        if not sizes[KINDS.index(kind)]:
            there = [name for name, size in zip(KINDS, sizes, strict=True) if size]
            raise ValueError(
                f"subject.k={{{kind}: {k[kind]}}}: the detector has no such channels; it has "
                f"{' and '.join(there)}"
            )
    numbers = {kind: KINDS.index(kind) for kind in KINDS if kind in k}
    found = {}
    for kind, i in numbers.items():
        count = parse_k(k[kind], int(sizes[i]), option=f"subject.k.{kind}")
        assert count is not None
        found[i] = count
    return found


def find_smallest_k(measure_ap: Callable[[list[int]], Floats], below: float, total: int) -> int:
    """Smallest k for which AP without the top k channels is below a value (`subject.k=auto`).

    Tries 0, powers of two and half of all channels in one pass over the images, then halves the
    gap. AP need not fall monotonically, so a smaller k off this path may be missed.

    Args:
        measure_ap: AP for each given number of channels dropped, all in one pass over the images.
        below: the value.
        total: number of channels.

    Raises:
        ValueError: AP is below the value with nothing dropped, or not with half of all channels.
    """
    half = max(1, total // 2)
    tried = sorted({0, half} | {2**i for i in range(half.bit_length())})
    aps = measure_ap(tried)
    if aps[0] < below:
        raise ValueError(
            f"subject.k=auto: AP on the seen generator is {aps[0]:.3f} with nothing dropped, "
            f"below subject.k_below={below:g} already; lower that, or give k as a number"
        )
    reached = np.flatnonzero(aps < below)
    if not len(reached):
        raise ValueError(
            f"subject.k=auto: AP on the seen generator stays at {np.nanmin(aps):.3f} or more "
            f"with up to {half} channels dropped, not below subject.k_below={below:g}; raise that, "
            "or give k as a number"
        )
    first = int(reached[0])
    low, high = tried[first - 1], tried[first]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if measure_ap([middle])[0] < below else (middle, high)
    return high


def evenly_spaced_counts(total: int, largest: float = 0.2, number: int = 10) -> list[int]:
    """Numbers of channels from 1 to the share `largest` of all, evenly spaced on a log scale."""
    most = max(1, round(largest * total))
    return sorted({round(count) for count in np.geomspace(1, most, number).tolist()})
