"""By what channels may be ranked: one number each, the larger the more it is thought to matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tff.analyses.records import Activity, Floats
from tff.types import Channels

#: In words, for legends.
CRITERIA = {
    "omega": "omega (FF-RS)",
    "lift": "lift (omega times layer width)",
    "effect": "gradient x activation",
    "response": "mean response",
    "weight": "norm of the filter",
    "random": "random",
}
DUPLICATES = ("mark", "merge")


def scores(
    by: str, omega: Callable[[], Floats], activity: Callable[[], Activity], channels: Channels,
    seed: int = 0,
) -> Floats:  # fmt: skip
    """(n_channels,) by one of `CRITERIA`.

    Lift compares a channel's share with the one that it had if its layer shared out evenly: omega
    favours narrow layers, since shares of a layer add up to 1 whatever its width.

    Args:
        omega: gives FF-RS; called only where it is needed, since a pass lies behind it.
        activity: likewise.
        seed: of the random order.

    Raises:
        ValueError: the criterion is unknown.
    """
    if by == "omega":
        return omega()
    if by == "lift":
        widths = [width for width in channels.widths.values() for _ in range(width)]
        return omega() * np.asarray(widths, np.float64)
    if by == "random":
        return np.random.default_rng(seed).random(len(channels))
    if by not in CRITERIA:
        raise ValueError(f"subject.ranking.by={by}: expected one of {', '.join(CRITERIA)}")
    found: Floats = getattr(activity(), by)
    return found


def order(scores: Floats, twins: Tensor, duplicates: str = "mark") -> Tensor:
    """All channels, best first, (n_channels,) flat indices; equal ones in the order of the network.

    Args:
        twins: of each channel the earlier one that it continues, or -1; see `detectors.twins`.
        duplicates: `mark` leaves both where they are; `merge` lets the earlier one stand for both,
            with the larger score, and puts the later one behind all others.

    Raises:
        ValueError: `duplicates` has another value.
    """
    if duplicates not in DUPLICATES:
        raise ValueError(f"subject.ranking.duplicates={duplicates}: expected mark or merge")
    value, later = scores.astype(np.float64), np.zeros(len(scores), bool)
    if duplicates == "merge":
        before, value = twins.numpy(), value.copy()
        later = before >= 0
        first = np.arange(len(value))
        while (before[first] >= 0).any():  # a channel may continue one that continues another
            first = np.where(before[first] >= 0, before[first], first)
        np.fmax.at(value, first[later], value[later])
    # NaN, of a channel without any value, comes behind all numbers; `lexsort` keeps ties in order.
    return torch.from_numpy(np.lexsort((-value, later)))
