"""Intervals as printed, one number after the other: percentiles, Wilson's, and of combinations."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import t


def quantile(numbers, share):
    """Linear between the numbers in order."""
    ordered = sorted(numbers)
    place = share * (len(ordered) - 1)
    left = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
    right = min(left + 1, len(ordered) - 1)
    return ordered[left] + (place - left) * (ordered[right] - ordered[left])


def ends(value, draws, level=0.95):
    """(low, high): bias-corrected percentiles (Efron, 1987)."""
    known, normal = [d for d in draws if d == d], NormalDist()
    equal = [d for d in known if abs(d - value) <= 1e-12]
    below = [d for d in known if d < value and abs(d - value) > 1e-12]
    share = (len(below) + len(equal) / 2) / len(known)
    share = min(max(share, 0.5 / len(known)), 1 - 0.5 / len(known))
    bias = normal.inv_cdf(share)
    low, high = (
        quantile(known, normal.cdf(2 * bias + normal.inv_cdf(at)))
        for at in ((1 - level) / 2, (1 + level) / 2)
    )
    return min(low, value), max(high, value)


def wilson(share, n, critical=1.959963984540054):
    """(low, high): the true shares of which the observed one is `critical` deviations away."""

    # (share - true)^2 = critical^2 true (1 - true) / n
    spread = critical**2 / n
    low, high = sorted(np.roots([1 + spread, -(2 * share + spread), share**2]).real)
    return max(0.0, low), min(1.0, high)


@dataclass
class Known:
    """A number, those of its resamples, and its interval as a function of the level."""

    value: float
    draws: list
    ends: object

    @classmethod
    def of_share(cls, value, draws, n):
        """Wilson's interval of n images."""
        quantiles = NormalDist()
        return cls(value, draws, lambda level: wilson(value, n, quantiles.inv_cdf((1 + level) / 2)))

    @classmethod
    def of_fraction(cls, value, draws, n):
        """Wilson's interval of the effective number of images, n of the rarer kind."""
        center = sum(draws) / len(draws)
        variance = sum((d - center) ** 2 for d in draws) / len(draws) * n / (n - 1)
        effective = (value * (1 - value) + 1 / (2 * n)) / (variance + 1 / (2 * n * n))
        return cls(
            value, draws, lambda level: wilson(value, effective, t.ppf((1 + level) / 2, n - 1))
        )

    @classmethod
    def of_draws(cls, value, draws):
        """Percentiles of the draws."""
        return cls(value, draws, lambda level: ends(value, draws, level))

    @property
    def interval(self):
        """(low, high) of 95 %."""
        return self.ends(0.95)

    def with_chance(self, reach):
        """(low, high) of 95 %, with further chance of that half width."""
        low, high = self.interval
        return (
            self.value - math.hypot(self.value - low, reach),
            self.value + math.hypot(high - self.value, reach),
        )


def _correlation(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    squares = [sum((x - m) ** 2 for x in s) for s, m in ((a, mean_a), (b, mean_b))]
    # What does not vary is independent of everything.
    return product / math.sqrt(squares[0] * squares[1]) if min(squares) > 1e-18 * len(a) else 0.0


def weighted_sum(parts, weights):
    """Weighted sum, its interval by MOVER (Zou & Donner, 2008)."""
    value = sum(w * part.value for w, part in zip(weights, parts, strict=True))
    draws = [
        sum(w * d for w, d in zip(weights, row, strict=True))
        for row in zip(*(part.draws for part in parts), strict=True)
    ]

    rows = [part.draws for part in parts]
    correlations = [[_correlation(a, b) for b in rows] for a in rows]

    def interval(level):
        reached = []
        for side in (0, 1):
            arms = []
            for w, part in zip(weights, parts, strict=True):
                end = part.ends(level)[side if w > 0 else 1 - side]
                arms.append(abs(w) * abs(part.value - end) * (1 if w > 0 else -1))
            square = sum(
                a * b * (1 if i == j else correlations[i][j])
                for i, a in enumerate(arms)
                for j, b in enumerate(arms)
            )
            reached.append(math.sqrt(max(0, square)))
        return value - reached[0], value + reached[1]

    return Known(value, draws, interval)


def difference(one, other):
    """Of two numbers; 0 for sure if they agree on resamples that differ."""
    found = weighted_sum([one, other], [1, -1])
    same = max(map(abs, [found.value, *found.draws])) < 1e-12
    every = [one.value, *one.draws]
    if same and max(every) - min(every) > 1e-12:
        return Known(found.value, found.draws, lambda level: (0.0, 0.0))
    return found


def average(parts):
    """Mean of several."""
    return weighted_sum(parts, [1 / len(parts)] * len(parts))


def worst(parts, smallest=True):
    """The least of several, or the largest."""
    if not smallest:
        turned = worst([weighted_sum([part], [-1]) for part in parts])
        return weighted_sum([turned], [-1])
    value = min(part.value for part in parts)
    draws = [min(row) for row in zip(*(part.draws for part in parts), strict=True)]

    def interval(level):
        low = min(part.ends(level)[0] for part in parts)
        strict = 1 - (1 - level) / len(parts)
        highs = [part.ends(strict)[1] for part in parts] + [average(parts).ends(level)[1]]
        return low, max(value, min(highs))

    return Known(value, draws, interval)


def chance(drawn, one_more=True):
    """Half the interval of one more draw, or of the mean over the draws; 0 for a choice."""
    m = len(drawn)
    if m == 1:
        return 0
    values = [known.value for known in drawn]
    return t.ppf(0.975, m - 1) * np.std(values, ddof=1) * np.sqrt(1 / m + one_more)
