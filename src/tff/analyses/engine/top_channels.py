"""Top channels: criteria by which channels are ranked, and the number of channels taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from tff.analyses.engine.passes import Activity
from tff.options import Allowed, checked, one_of
from tff.types import Channels, Floats

#: Criteria by which channels can be ranked, in the words of legends.
CRITERIA = {
    "omega": "omega (FF-RS)",
    "lift": "lift (omega times layer width)",
    "effect": "gradient x activation",
    "response": "mean response",
    "weight": "norm of the filter",
    "random": "random",
}
Duplicates = Literal["mark", "merge"]


@dataclass(frozen=True)
@checked("subject.ranking")
class RankingRule:
    """How channels are ranked.

    Args:
        by: one of `CRITERIA`.
        duplicates: see `rank_channels`.
    """

    by: Annotated[str, one_of(CRITERIA)] = "omega"
    duplicates: Duplicates = "mark"


def score_channels(
    by: str, omega: Callable[[], Floats], activity: Callable[[], Activity], channels: Channels,
    seed: int = 0,
) -> Floats:  # fmt: skip
    """Score of each channel by one of `CRITERIA`, (n_channels,); higher ranks first.

    Lift compares a channel's share of relevance with an even share of its layer: shares of a layer
    add up to 1 whatever its width, so omega favors narrow layers.

    Args:
        omega: computes FF-RS; called only if needed, since it takes a pass over the images.
        activity: computes the other criteria; likewise.
        seed: of the random order.

    Raises:
        ValueError: the criterion is unknown.
    """
    one_of(CRITERIA).require("subject.ranking.by", by)
    if by == "omega":
        return omega()
    if by == "lift":
        widths = [width for width in channels.widths.values() for _ in range(width)]
        return omega() * np.asarray(widths, np.float64)
    if by == "random":
        return np.random.default_rng(seed).random(len(channels))
    scores: Floats = getattr(activity(), by)
    return scores


def rank_channels(scores: Floats, twins: Tensor, duplicates: Duplicates = "mark") -> Tensor:
    """Flat indices of all channels, (n_channels,), best first; ties keep the network's order.

    Args:
        scores: (n_channels,).
        twins: for each channel the earlier channel that it repeats, or -1; see
            `detectors.feature_maps.depthwise_twins`.
        duplicates: `mark` ranks both by their own scores; `merge` gives the earlier one the larger
            of the two scores and ranks the later one behind all other channels.
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
    return torch.from_numpy(np.lexsort((-values, later)))


def _is_k(k: int | str) -> bool:
    text = str(k).replace(" ", "")
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if share:
        return 0 < float(share[1]) <= 100
    return text == "auto" or (not isinstance(k, bool | float) and int(text) >= 1)


#: Allowed values of the option `k`.
K = Allowed(_is_k, "a whole number of at least 1, a share above 0% and at most 100%, or auto")
#: Allowed numbers of channels.
COUNT = Allowed(
    lambda k: _is_k(k) and k != "auto",
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
