"""False alarms and power of the comparison of top channels with random ones.

python benchmarks/controls.py [--repeats 400] [--draws 5 10 20]
                              [--ckpt FILE [--sets 40] [--ks 5 21 96] [--passes DIR]]

In place of the top k stands one more random order matched in layer, so that every "significantly
more" is false. Simulated detectors: the logit of an image is a sum over channels in layers of
different widths, some of which matter far more than others. With `--ckpt`, the same for a trained
detector, each of `--sets` orders against the next ones. `sensitivity` judges AP at one k, `k_sweep`
the mean over log k. The last column shows how often the interval of the difference from the
*average* draw excludes 0: often, since even a random draw differs from it.

Power: AP without the top k is 0.10 lower than without random ones, whose standard deviation is
0.03.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from common import option_parser

from tff.analyses.engine.controls import Comparison, Controls
from tff.analyses.engine.replay import cache_passes
from tff.analyses.engine.subject import Subject
from tff.detectors.checkpoint import load
from tff.startup import prepare_process
from tff.statistics.bootstrap import (
    Estimate,
    count_draws,
    draw_resamples,
    evaluate_resamples,
    mean_height,
)
from tff.statistics.detection import count_above_thresholds
from tff.training.from_checkpoint import Checkpoint
from tff.types import Channels

CHANNELS = Channels({"conv1": 16, "layer1": 32, "layer2": 64, "layer3": 128})
KS = (1, 3, 8, 20, 48)


def ap(labels, scores, rows):
    """AP of scores, with its bootstrap resamples."""

    def of(at):
        counts = count_draws(at, len(labels))
        return count_above_thresholds(labels, scores, counts).average_precision()

    return Estimate(of(np.arange(len(labels))[None])[0], evaluate_resamples(of, rows, 2**18))


def log_height(ks, order):
    """Mean AP over log k."""
    return mean_height(np.log(ks).tolist(), order) if len(ks) > 1 else order[0]


def simulate(seed, images, orders):
    """AP estimates [order][k] of a new detector, for matched orders of a random ranking.

    Channels of earlier layers, and a few of every layer, carry more of the signal; a ranking takes
    more channels from some layers than from others.
    """
    rng = np.random.default_rng([seed, 7])
    labels = np.repeat([0, 1], images)
    strength = [1.0, 0.5, 0.2, 0.1]
    scale = np.repeat(strength, [*CHANNELS.widths.values()])
    signal = scale * rng.standard_t(3, len(CHANNELS)) * rng.uniform(0, 1, len(CHANNELS))
    signal += 0.3 * scale
    noise = rng.normal(size=(len(labels), len(CHANNELS))) * scale * rng.uniform(1, 3)
    parts = signal * (labels[:, None] - 0.5) + noise
    liking = np.repeat(rng.normal(0, 2, len(strength)), [*CHANNELS.widths.values()])
    ranking = torch.from_numpy(np.argsort(-(liking + rng.gumbel(size=len(CHANNELS)))))
    rows = draw_resamples(labels, 200, seed)
    total = parts.sum(1)
    drawn = Controls(CHANNELS, ranking, seed).matched(orders)
    return [[ap(labels, total - parts[:, o[:k].numpy()].sum(1), rows) for k in KS] for o in drawn]


def measure(ckpt, passes, ks, sets, draws):
    """AP estimates [generator][order][k] of a trained detector, for its omega ranking."""
    splits = Checkpoint.read(ckpt).data.splits()
    subject = Subject.of(load(ckpt), splits, confidence=0.5, draws=draws)
    if passes:
        subject = cache_passes(subject, Path(passes))
    orders = Controls(subject.channels, subject.ranking, subject.seed + 1).matched(sets)
    choices = {f"{i} {k}": order[:k] for i, order in enumerate(orders) for k in ks}
    logits = subject.evaluate_without_channels(choices)
    found = {}
    for name, at in subject.generators():
        labels = subject.labels[at]
        rows = draw_resamples(labels, draws, subject.seed)
        found[name] = [[ap(labels, logits[f"{i} {k}"][at], rows) for k in ks] for i in range(sets)]
    return found


def count(found, orders, ks):
    """Verdicts on the first of the orders against the others, added to a counter."""
    at = [(f"k = {k}", [order[i] for order in orders]) for i, k in enumerate(ks)]
    at.append(("mean over log k", [log_height(ks, order) for order in orders]))
    for what, (top, *drawn) in at:
        compared = Comparison.of(top, drawn)
        low, high = compared.on_average.interval
        found[what, "average"] += bool(low > 0 or high < 0)
        low, high = compared.from_one.interval
        found[what, "more"] += bool(low > 0)
        found[what, "less"] += bool(high < 0)
        found[what, "all"] += 1


def show(title, found):
    for what in dict.fromkeys(what for what, _ in found):
        all_ = found[what, "all"]
        shares = [f"{100 * found[what, kind] / all_:.1f}" for kind in ("more", "less", "average")]
        print(f"| {title} | {what} | {all_} | {' | '.join(shares)} |", flush=True)


def power(draws, repeats, images_sd):
    """Share of cases in which a drop of 0.10 below draws of standard deviation 0.03 is found."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(repeats):
        drawn = [Estimate(v, np.full(200, v)) for v in rng.normal(0.9, 0.03, draws)]
        value = rng.normal(0.8, 0.03) + rng.normal(0, images_sd)
        top = Estimate(value, value + rng.normal(0, images_sd, 200))
        found += Comparison.of(top, drawn).from_one.low > 0
    return found / repeats


def main():
    args = option_parser(
        __doc__, repeats=400, draws=[5, 10, 20], images=100, ckpt="", passes="", sets=40,
        ks=[5, 21, 96],
    ).parse_args()  # fmt: skip
    print("| detector, draws | judged | cases | significantly more, % | less, % | average, % |")
    print("|---|---|---|---|---|---|")
    if args.repeats:
        several = [simulate(s, args.images, 1 + max(args.draws)) for s in range(args.repeats)]
        for draws in args.draws:
            found = Counter()
            for orders in several:
                count(found, orders[: 1 + draws], KS)
            show(f"simulated, {draws}", found)
    if args.ckpt:
        by_generator = measure(args.ckpt, args.passes, args.ks, args.sets, 300)
        for draws in args.draws:
            found = Counter()
            for orders in by_generator.values():
                ring = orders + orders[:draws]
                for i in range(args.sets):
                    count(found, ring[i : i + 1 + draws], args.ks)
            show(f"trained, {draws}", found)
    for draws in args.draws:
        shares = [power(draws, 4000, sd) for sd in (0, 0.01)]
        print(
            f"power with {draws} draws: {shares[0]:.2f}; "
            f"with a standard error of 0.01 from the images {shares[1]:.2f}"
        )


if __name__ == "__main__":
    prepare_process()
    main()
