"""Agreement of two rankings: overlap of the top k, what chance gives, rank correlation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import hypergeom, rankdata

from tff.types import Floats, Ints


class Chance(NamedTuple):
    """Overlap by chance: its mean, and the probability of at least the overlap found."""

    mean: float
    p: float


def rank(scores: Floats) -> Ints:
    """Indices by score, largest first; ties in their order."""
    return np.argsort(-scores, kind="stable")


def top_k_overlap(first: Ints, second: Ints) -> Ints:
    """Number of items in the top k of both rankings, for k = 1 ... n.

    Args:
        first: (n,) the numbers 0 ... n - 1, best first.
        second: likewise.

    Returns:
        (n,) counts, the one for k at k - 1.

    Raises:
        ValueError: the rankings do not hold the same items, each once.
    """
    n = len(first)
    everything = np.arange(n)
    if any(len(r) != n or not np.array_equal(np.sort(r), everything) for r in (first, second)):
        raise ValueError("rankings: both must hold the numbers 0 to n - 1, each once")
    # An item is shared from the k on that reaches it in both rankings.
    positions = np.maximum(np.argsort(first), np.argsort(second))
    return np.cumsum(np.bincount(positions, minlength=n))


def chance_overlap(found: int, k: int, n: int) -> Chance:
    """Overlap of two independent rankings: the hypergeometric distribution."""
    return Chance(k * k / n, float(hypergeom.sf(found - 1, n, k, k)))


def chance_overlap_within_groups(
    found: int, k: int, first: Ints, second: Ints, groups: Ints
) -> Chance:
    """Overlap of two rankings that are independent within groups (layers, for channels).

    Each keeps its number of top-k items per group, and items of a group are exchanged at random.
    The overlap is a sum of independent hypergeometric counts, convolved exactly.

    Args:
        found: overlap at k.
        first: (n,) ranking.
        second: likewise.
        groups: (n,) group number of each item.
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
    """Mean of `chance_overlap_within_groups` for many k, (len(ks),)."""
    means = np.zeros(len(ks))
    for group, size in enumerate(np.bincount(groups)):
        a, b = (np.searchsorted(np.flatnonzero(groups[r] == group), ks) for r in (first, second))
        means += a * b / max(size, 1)
    return means


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; NaN, without scipy's warning, if either is constant or empty."""
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (a, b))
    scale = np.sqrt((x @ x) * (y @ y))
    return float(np.clip(x @ y / scale, -1, 1)) if scale > 0 else np.nan


def rank_biased_overlap(counts: Floats | Ints, p: float) -> float:
    """Rank-biased overlap, which weighs the top most (Webber et al., TOIS 2010, equation 32).

    Args:
        counts: (n,) overlap at k = 1 ... n of rankings of the same n items, found or by chance.
        p: in (0, 1), the probability that a reader looks at the next rank: 1 / (1 - p) ranks on
            average.

    Raises:
        ValueError: p is not between 0 and 1.
    """
    if not 0 < p < 1:
        raise ValueError(f"p={p}: must lie between 0 and 1, such as 0.99")
    depth = np.arange(1, len(counts) + 1)
    agreement = counts / depth
    # Beyond the last rank the agreement stays as it is there.
    tail = agreement[-1] * p ** len(counts) if len(counts) else np.nan
    return float((1 - p) / p * (agreement * p**depth).sum() + tail)
