"""Agreement of two rankings, and what chance gives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import hypergeom, rankdata

from tff.types import Floats, Ints


class Chance(NamedTuple):
    """What chance gives: the mean overlap, and how often it is at least as large as found."""

    mean: float
    p: float


def rank(omega: Floats) -> Ints:
    """Indices by value, largest first; equal values in their order."""
    return np.argsort(-omega, kind="stable")


def top_k_overlap(first: Ints, second: Ints) -> Ints:
    """How many of the top k of one ranking are among the top k of the other, for k = 1 ... n.

    Args:
        first: (n,) the numbers 0 ... n - 1, best first.
        second: likewise.

    Returns:
        (n,) counts, the one for k at k - 1.

    Raises:
        ValueError: the two do not rank the same things, each once.
    """
    n = len(first)
    everything = np.arange(n)
    if any(len(r) != n or not np.array_equal(np.sort(r), everything) for r in (first, second)):
        raise ValueError("rankings: both must hold the numbers 0 to n - 1, each once")
    # A thing is shared from the k on that reaches it in both rankings.
    places = np.maximum(_places(first), _places(second))
    return np.cumsum(np.bincount(places, minlength=n))


def chance_overlap(found: int, k: int, n: int) -> Chance:
    """Of two rankings that know nothing of each other: the hypergeometric distribution."""
    return Chance(k * k / n, float(hypergeom.sf(found - 1, n, k, k)))


def chance_overlap_within_groups(
    found: int, k: int, first: Ints, second: Ints, groups: Ints
) -> Chance:
    """Of two rankings that agree on the groups of the top k at most, not on what is in a group.

    The things are exchanged at random within their groups: a sum of independent hypergeometric
    counts, whose distribution is convolved exactly.

    Args:
        found: overlap at k.
        first: (n,) ranking; its top k tells how many come from each group.
        second: likewise.
        groups: (n,) number of the group of each thing.
    """
    sizes, distribution = np.bincount(groups), np.ones(1)
    tops = [np.bincount(groups[r[:k]], minlength=len(sizes)) for r in (first, second)]
    for size, a, b in zip(sizes, *tops, strict=True):
        if a and b:
            counts = np.arange(min(a, b) + 1)
            distribution = np.convolve(distribution, hypergeom.pmf(counts, size, a, b))
    mean = float(mean_overlap_within_groups(np.array([k]), first, second, groups)[0])
    return Chance(mean, min(1.0, float(distribution[found:].sum())))


def mean_overlap_within_groups(ks: Ints, first: Ints, second: Ints, groups: Ints) -> Floats:
    """The mean overlap of `overlap_within` at many k: (len(ks),)."""
    means = np.zeros(len(ks))
    for group, size in enumerate(np.bincount(groups)):
        a, b = (np.searchsorted(np.flatnonzero(groups[r] == group), ks) for r in (first, second))
        means += a * b / max(size, 1)
    return means


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation, ties sharing their mean rank; NaN if either is constant or too short."""
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (a, b))
    scale = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / scale, -1, 1)) if scale > 0 else np.nan


def rank_biased_overlap(counts: Floats | Ints, p: float) -> float:
    """Overlap that weighs the top most (Webber, Moffat and Zobel, TOIS 2010, equation 32).

    Args:
        counts: (n,) overlap at k = 1 ... n of rankings of the same n things; or what chance gives.
        p: in (0, 1). A reader who looks at the next rank with this probability sees 1 / (1 - p)
            ranks on average; the result is the overlap, as a share, that this reader finds.

    Raises:
        ValueError: p is not between 0 and 1.
    """
    if not 0 < p < 1:
        raise ValueError(f"p={p}: must lie between 0 and 1, such as 0.99")
    depth = np.arange(1, len(counts) + 1)
    agreement = counts / depth
    # Below the last rank there is nothing: the agreement stays what it is there.
    tail = agreement[-1] * p ** len(counts) if len(counts) else np.nan
    return float((1 - p) / p * (agreement * p**depth).sum() + tail)


def _places(ranking: Ints) -> Ints:
    places = np.empty_like(ranking)
    places[ranking] = np.arange(len(ranking))
    return places
