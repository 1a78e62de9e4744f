"""The bias-corrected percentile interval as printed (Efron, 1987), with nothing of NumPy's."""

from statistics import NormalDist


def quantile(numbers, share):
    """Linear between the numbers in order."""
    ordered = sorted(numbers)
    place = share * (len(ordered) - 1)
    left = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
    right = min(left + 1, len(ordered) - 1)
    return ordered[left] + (place - left) * (ordered[right] - ordered[left])


def ends(value, draws):
    """(low, high) of 95 %."""
    known, normal = [d for d in draws if d == d], NormalDist()
    equal = [d for d in known if abs(d - value) <= 1e-12]
    below = [d for d in known if d < value and abs(d - value) > 1e-12]
    share = (len(below) + len(equal) / 2) / len(known)
    share = min(max(share, 0.5 / len(known)), 1 - 0.5 / len(known))
    bias = normal.inv_cdf(share)
    low, high = (
        quantile(known, normal.cdf(2 * bias + normal.inv_cdf(level))) for level in (0.025, 0.975)
    )
    return min(low, value), max(high, value)
