"""How many channels are called the top: a number, a share, or as many as the detector needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np

from tff.analyses.records import Floats

#: Accepts several k at once, since images are then read once for all; gives the AP of each.
Drop = Callable[[list[int]], Floats]


def parsed(k: int | str | None, total: int, fraction: float) -> int | None:
    """`114`, `0.43%`, `auto` (None), or None for the share that the paper takes.

    A share, however small, is at least one channel.

    Raises:
        ValueError: k is nothing of this, or not between 1 and the number of channels, or 0 %.
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
        raise ValueError(f"subject.k={k}: expected a number, a share such as 0.43%, or auto")
    if not 0 < number <= total:
        raise ValueError(f"subject.k={k}: must lie between 1 and the number of channels, {total}")
    return number


def smallest(drop: Drop, below: float, total: int) -> int:
    """The smallest k whose top k, dropped, take AP below a value.

    Nothing, powers of two and half of all channels first, in one reading of the images; then the
    gap is halved. As AP need not fall evenly, a smaller k that an even fall would not suggest may
    have been passed over.

    Raises:
        ValueError: not even half of all channels do, or AP is below the value as it is.
    """
    half = max(1, total // 2)
    tried = sorted({0, half} | {2**i for i in range(half.bit_length())})
    found = drop(tried)
    if found[0] < below:
        raise ValueError(
            f"subject.k=auto: AP on the seen generator is {found[0]:.3f} with nothing dropped, "
            f"below subject.k_below={below:g} already; lower that, or give k as a number"
        )
    reached = np.flatnonzero(found < below)
    if not len(reached):
        raise ValueError(
            f"subject.k=auto: AP on the seen generator stays at {np.nanmin(found):.3f} or more "
            f"with up to {half} channels dropped, not below subject.k_below={below:g}; raise that, "
            "or give k as a number"
        )
    first = int(reached[0])
    low, high = tried[first - 1], tried[first]
    while high - low > 1:
        middle = (low + high) // 2
        if float(drop([middle])[0]) < below:
            high = middle
        else:
            low = middle
    return high


def ladder(shares: Iterable[float], total: int) -> list[int]:
    """Numbers of channels for shares in percent, each once, rising."""
    return sorted({max(1, round(share / 100 * total)) for share in shares if share > 0})
