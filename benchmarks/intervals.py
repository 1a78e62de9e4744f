"""How often the intervals of detection measures hold, by simulation.

    python benchmarks/intervals.py [--samples 100]

Scores of real images follow N(0, 1), those of generated ones N(d, 1); d gives the measure the true
value of each row. `plain` are bias-corrected quantiles of the resamples, `here` what the tables
show. Both columns tell the share of samples in which a 95 % interval holds the true value, and the
mean width.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from tff.statistics.bootstrap import (
    Estimate,
    bias_corrected_interval,
    count_draws,
    draw_resamples,
    mean,
    worst,
)
from tff.statistics.detection import (
    RATES,
    calibrated_errors,
    count_above_thresholds,
    judge_calibration,
    least_real_images,
    measures,
    sigmoid,
)
from tff.types import Floats, Ints

DRAWS = 200
#: Threshold of the accuracies.
CALLED = 1.0
#: Correlation of the scores of two detectors on the same image.
SHARED = 0.7
_U = (np.arange(20_000) + 0.5) / 20_000


def true_value(measure: str, d: float, real: int, generated: int) -> float:
    """Of unlimited images, of which as many are generated as in the sample."""
    if measure.endswith("accuracy"):
        return float(ndtr(d - CALLED))
    caught, false = 1 - _U, 1 - ndtr(d + ndtri(_U))
    if measure == "auc":
        return float((1 - false).mean())
    return float((generated * caught / (generated * caught + real * false)).mean())


def distance(measure: str, value: float, real: int, generated: int) -> float:
    """The d of which a measure has the true value."""
    return float(brentq(lambda d: true_value(measure, d, real, generated) - value, -3, 14))


def labels_of(real: int, generated: int) -> Ints:
    """Labels of a sample."""
    return np.repeat([0, 1], [real, generated])


def measure(labels: Ints, scores: Floats, seed: int) -> dict[str, Estimate]:
    """All measures of a sample."""
    rows, p = draw_resamples(labels, DRAWS, seed), np.full(len(labels), np.nan)
    return measures(labels, scores, scores > CALLED, p, rows)


class Tally:
    """Coverage and width of two kinds of intervals."""

    def __init__(self) -> None:
        self.held: dict[str, list[bool]] = {"plain": [], "here": []}
        self.width: dict[str, list[float]] = {"plain": [], "here": []}

    def add(self, found: Estimate, truth: float) -> None:
        """Count the intervals of one estimate."""
        plain = bias_corrected_interval(found.value, found.draws)
        for kind, (low, high) in (("plain", plain), ("here", found.interval)):
            self.held[kind].append(low - 1e-12 <= truth <= high + 1e-12)
            self.width[kind].append(high - low)

    def __str__(self) -> str:
        return "   ".join(
            f"{kind} {100 * np.mean(held):3.0f} % ({np.mean(self.width[kind]):.3f})"
            for kind, held in self.held.items()
        )


def single(
    name: str, value: float, real: int, generated: int, samples: int, rng: np.random.Generator
) -> Tally:
    """One generator."""
    labels, d, tally = labels_of(real, generated), distance(name, value, real, generated), Tally()
    for seed in range(samples):
        scores = rng.normal(size=len(labels)) + d * labels
        tally.add(measure(labels, scores, seed)[name], value)
    return tally


def paired(value: float, less: float, n: int, samples: int, rng: np.random.Generator) -> Tally:
    """Difference of AP of two detectors on the same images."""
    labels, tally = labels_of(n, n), Tally()
    ds = [distance("ap", at, n, n) for at in (value, less)]
    for seed in range(samples):
        common, own = rng.normal(size=len(labels)), rng.normal(size=(2, len(labels)))
        noise = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own
        one, other = (
            measure(labels, z + d * labels, seed)["ap"] for z, d in zip(noise, ds, strict=True)
        )
        tally.add(one - other, value - less)
    return tally


def several(
    values: list[float], n: int, samples: int, rng: np.random.Generator,
    over: Callable[[list[Estimate]], Estimate], truth: float,
) -> Tally:  # fmt: skip
    """Mean or worst AP of several generators."""
    labels, tally = labels_of(n, n), Tally()
    ds = [distance("ap", value, n, n) for value in values]
    for seed in range(samples):
        found = [measure(labels, rng.normal(size=2 * n) + d * labels, seed)["ap"] for d in ds]
        tally.add(over(found), truth)
    return tally


def grouped(groups: int, copies: int, samples: int, rng: np.random.Generator) -> Iterator[str]:
    """AP of images in groups, whose scores share three quarters of their variance."""
    labels = labels_of(groups * copies, groups * copies)
    unit, d = np.repeat(np.arange(2 * groups), copies), distance("ap", 0.9, 1, 1)
    none = np.full(len(labels), np.nan)
    tallies = {"as images": Tally(), "as groups": Tally()}
    for seed in range(samples):
        noise = rng.normal(size=2 * groups)[unit] * np.sqrt(0.75)
        scores = noise + rng.normal(size=len(labels)) / 2 + d * labels
        for name, given in (("as images", None), ("as groups", unit)):
            rows = draw_resamples(labels, DRAWS, seed, given)
            tallies[name].add(measures(labels, scores, scores > 0, none, rows, given)["ap"], 0.9)
    for name, tally in tallies.items():
        yield f"AP 0.9, {groups} + {groups} groups of {copies:2d}, drawn {name}:   {tally}"


def caught(rate: float, n: int, samples: int, rng: np.random.Generator) -> str:
    """True rate of the threshold, and coverage of the share caught (true share 0.9)."""
    d = -ndtri(rate) + ndtri(0.9)
    labels, tally, rates = labels_of(n, n), Tally(), {"plain": [], "here": []}
    plain_held = []
    for seed in range(samples):
        scores = rng.normal(size=2 * n) + d * labels
        rows = draw_resamples(labels, DRAWS, seed)
        weights = np.concatenate([np.ones((1, 2 * n), np.int64), count_draws(rows, 2 * n)])
        counts = count_above_thresholds(labels, scores, weights)
        allowed = counts.false <= rate * counts.false[..., -1:]
        shares = np.where(allowed, counts.true, 0).max(-1) / n
        low, high = bias_corrected_interval(shares[0], shares[1:])
        plain_held.append(low <= 0.9 <= high)
        real = np.sort(scores[:n])[::-1]
        # A threshold just above the first image that it must not admit.
        rates["plain"].append(1 - ndtr(real[int(rate * n + 1e-9)]))
        k = int(np.floor(rate * (n + 1) + 1e-9)) - 1
        rates["here"].append(1 - ndtr(real[k]) if k >= 0 else np.nan)
        if n >= least_real_images(rate):
            name = next(name for name, at in RATES.items() if at == rate)
            tally.add(measure(labels, scores, seed)[name], 0.9)
    here = "not reported"
    if tally.held["here"]:
        here = (
            f"true rate {100 * np.mean(rates['here']):.1f} %, "
            f"holds {100 * np.mean(tally.held['here']):.0f} %"
        )
    return (
        f"{100 * rate:.0f} % false alarms, {n:4d} real: plain: true rate "
        f"{100 * np.mean(rates['plain']):.1f} %, holds {100 * np.mean(plain_held):.0f} %; "
        f"here: {here}"
    )


def calibration(n: int, scale: float, samples: int, rng: np.random.Generator) -> str:
    """ECE of a detector whose logits are `scale` times those of a calibrated one."""

    def sample(size: int) -> tuple[Ints, Floats]:
        z = 3 * rng.normal(size=size)
        return (rng.random(size) < sigmoid(z)).astype(np.int64), sigmoid(scale * z)

    def error(labels: Ints, p: Floats) -> Estimate:
        rows, none = draw_resamples(labels, DRAWS, 0), np.full(len(labels), np.nan)
        return measures(labels, none, p > 0.5, p, rows)["ece"]

    labels, p = sample(400_000)
    rows = np.zeros((0, 1), np.int64)
    truth = measures(labels, np.zeros(len(p)), p > 0.5, p, rows)["ece"].value
    truth = 0.0 if scale == 1 else truth
    tally, values, above = Tally(), [], []
    for seed in range(samples):
        labels, p = sample(n)
        found, null = error(labels, p), calibrated_errors(p, 1000, seed)
        values.append(found.value)
        above.append(found.value > np.quantile(null, 0.95))
        tally.add(judge_calibration(found, null), truth)
    return (
        f"ECE {truth:.3f}, {n:4d} images: mean of estimates {np.mean(values):.3f}, above ece_null "
        f"{100 * np.mean(above):3.0f} %;   {tally}"
    )


def table(samples: int) -> Iterator[str]:
    """All rows."""
    rng = np.random.default_rng(0)
    sizes = [(20, 20), (30, 30), (100, 100), (300, 300), (100, 20), (20, 100)]
    for name in ("ap", "auc", "fake_accuracy"):
        for real, generated in sizes:
            for value in (0.6, 0.9, 0.99, 0.998, 0.9999):
                if value <= generated / (real + generated):
                    continue
                tally = single(name, value, real, generated, samples, rng)
                yield f"{name} {value}, {real} + {generated}:   {tally}"
    for n in (30, 100):
        for value, less in ((0.9, 0.9), (0.9, 0.8), (0.99, 0.99), (0.998, 0.97), (0.998, 0.998)):
            tally = paired(value, less, n, samples, rng)
            yield f"AP {value} - {less}, paired, {n} + {n}:   {tally}"
    for n in (30, 100):
        for value in (0.6, 0.9, 0.99, 0.998):
            tally = several([value] * 4, n, samples, rng, mean, value)
            yield f"mean AP of 4 generators, {value}, {n} + {n}:   {tally}"
    for values in ([0.9] * 4, [0.9] * 10, [0.8, 0.9, 0.95, 0.99], [0.99] * 4):
        for n in (30, 100):
            tally = several(values, n, samples, rng, worst, min(values))
            shown = values if len(set(values)) > 1 else f"{len(values)} x {values[0]}"
            yield f"worst AP of {shown}, {n} + {n}:   {tally}"
    for groups, copies in ((7, 20), (15, 10), (40, 5)):
        yield from grouped(groups, copies, samples, rng)
    for rate, n in ((0.01, 20), (0.01, 100), (0.01, 300), (0.01, 1000), (0.05, 60), (0.05, 300)):
        yield caught(rate, n, samples, rng)
    for scale in (1, 2):
        for n in (60, 200, 1000):
            yield calibration(n, scale, samples, rng)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100)
    for line in table(parser.parse_args().samples):
        print(line, flush=True)
