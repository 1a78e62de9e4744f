"""How often is a sentence of a report false where it should not be?

python benchmarks/claims.py [--rounds 2000] [--only channels seeds correlation chance color lead]
python benchmarks/claims.py --only few --ckpt FILE

Each line simulates one sentence where the truth is known, and prints in which share of the rounds
the report says what is not so, or, where that is the point, what is so. Scores are normal. `few`
ranks the channels of a detector on different images, and prints which share of the top k of one
ranking is in the top k of the other.
"""

from functools import partial

import numpy as np
import pandas as pd
import torch
from common import option_parser
from scipy.stats import norm

from tff.analyses.engine.evaluation import describe_drop
from tff.analyses.engine.passes import labels_of
from tff.analyses.engine.sanity_checks import describe_chance
from tff.analyses.engine.subject import Subject
from tff.comparisons.sweep import DONE, compare_best, correlate_shares
from tff.detectors.checkpoint import load
from tff.relevance.lrp import LRP
from tff.report.page import describe_transfer
from tff.statistics.bootstrap import draw_resamples
from tff.statistics.channel_tests import delong_test, median_test, roc_auc
from tff.statistics.detection import measures, sigmoid
from tff.training.from_checkpoint import Checkpoint
from tff.types import Result

ALPHA = 0.05


def pairs(rng, shape, together):
    """Two arrays of standard normal scores with a correlation."""
    one, other = rng.normal(size=(2, *shape))
    return one, together * one + np.sqrt(1 - together**2) * other


def shift(area):
    """Difference of the means of two normal distributions whose ROC area is this."""
    return np.sqrt(2) * norm.ppf(area)


def two_kinds(rng, n, areas, together, columns):
    """Labels of n real and n generated images; two scores with these ROC areas."""
    labels = np.repeat([0, 1], n)
    a, b = pairs(rng, (2 * n, columns), together)
    gaps = [shift(area) * labels[:, None] for area in areas]
    return labels, a + gaps[0], b + gaps[1]


def channels(rng, rounds):
    """Single tests of channels at level 0.05, without the correction for their number."""
    for n in (20, 30, 100):
        for areas, together in (
            ((0.5, 0.5), 0), ((0.5, 0.5), 0.9), ((0.7, 0.7), 0.9), ((0.6, 0.4), 0.9),
            ((0.55, 0.45), 0.9), ((0.5, 0.9), 0.5),
        ):  # fmt: skip
            found = delong_test(*two_kinds(rng, n, areas, together, rounds))
            told = f"{n} + {n} images, areas {areas[0]} and {areas[1]}, correlation {together}"
            if sum(areas) == 1 or areas[0] == areas[1]:
                yield "a channel loses or gains", told, (found.p_strength <= ALPHA).mean()
            if areas in ((0.5, 0.5), (0.5, 0.9)):
                yield "a channel turns", told, (found.p_turn <= ALPHA).mean()
    for n in (20, 100, 1000):
        for together in (0, 0.5, 0.9, 0.99):
            p = median_test(*pairs(rng, (n, rounds), together))
            told = f"{n} generated images, correlation {together}"
            yield "a response changes (Mood's test)", told, (p <= ALPHA).mean()


def jobs_of(groups, seeds, values):
    """Table of finished jobs."""
    table = pd.DataFrame(
        {"group": np.repeat(groups, seeds), "seed": np.tile(range(seeds), len(groups))}
    )
    return table.assign(state=DONE, **values)


def seeds(rng, rounds):
    """Groups with the same distribution of AP: is the lead of the best more than seeds explain?"""
    for number, of_each in ((2, 3), (2, 5), (3, 3), (6, 3), (6, 5)):
        names, size = [str(i) for i in range(number)], (rounds // 10, number, of_each)
        normal = rng.normal(size=size)
        wide = np.where(np.arange(number) == 0, 4, 1)[:, None]
        for name, values in (
            ("normal", normal),
            ("skewed, near 1", 1 - rng.gamma(1, size=size)),
            ("one group 4 times as wide", normal * wide),
        ):
            count = 0
            for drawn in values:
                jobs = jobs_of(names, of_each, {"unseen_ap": drawn.ravel()})
                means = jobs.groupby("group")["unseen_ap"].mean().sort_values(ascending=False)
                count += compare_best(jobs, *means.index[:2]) < ALPHA
            told = f"{number} equal groups of {of_each} seeds, {name}"
            yield "a lead is more than seeds explain", told, count / len(values)


def correlation(rng, rounds):
    """Unrelated AP and shares."""
    for n in (10, 20):
        count = 0
        for number in range(rounds // 20):
            values = {c: rng.normal(size=n) for c in ("unseen_ap", "share_losing")}
            values |= dict.fromkeys(("conditional_share", "share_separating"), 0.0)
            jobs = jobs_of([str(i) for i in range(n)], 1, values)
            row = correlate_shares(jobs, 200, number).iloc[0]
            count += row["spearman_low"] > 0 or row["spearman_high"] < 0
        yield "AP and shares are correlated", f"{n} trainings", count / (rounds // 20)


def chance(rng, rounds):
    """Which sentence is said of a detector with this AUC? The first is true below 0.6."""
    for area in (0.5, 0.55, 0.6, 0.7):
        for n in (30, 100, 300):
            said = {
                "is at chance, or close": 0,
                "cannot be told from chance": 0,
                "is wrong more": 0,
            }
            labels, scores, _ = two_kinds(rng, n, (area, area), 0, rounds // 4)
            for column in scores.T:
                alarm = describe_chance({"g": roc_auc(labels, column)}, {"g": 2 * n})
                for words in said:
                    said[words] += words.split(",")[0] in "".join(alarm)
            for words, count in said.items():
                yield (
                    f"the detector {words}",
                    f"AUC {area}, {n} + {n} images",
                    count / (rounds // 4),
                )


def color(rng, rounds):
    """AP of equal detectors, with and without the cue."""
    for n in (12, 30, 100):
        for area in (0.75, 0.95):
            count, labels = 0, np.repeat([0, 1], n)
            for number in range(rounds // 10):
                _, a, b = two_kinds(rng, n, (area, area), 0.7, 1)
                rows = draw_resamples(labels, 300, number)
                one, other = (
                    measures(labels, of[:, 0], of[:, 0] > 0, sigmoid(of[:, 0]), rows)["ap"]
                    for of in (a, b)
                )
                drop = one - other
                count += "not significantly" not in describe_drop(drop)
            told = f"{n} + {n} images, AUC {area} with and without"
            yield "AP falls or rises without the cue", told, count / (rounds // 10)


def lead(rng, rounds):
    """What the page begins with, for a detector that guesses on generators never seen."""
    for number in (1, 3, 10):
        for n in (30, 100):
            count, labels = 0, np.repeat([0, 1], n)
            for _ in range(rounds // 10):
                areas = [roc_auc(labels, rng.normal(size=2 * n)) for _ in range(number)]
                auc, low, high = np.transpose(areas)
                table = pd.DataFrame(
                    {"auc": auc, "auc_low": low, "auc_high": high, "images": 2 * n}
                )
                error = np.sqrt((((high - low) / 3.92) ** 2).mean() / number)
                mean = {
                    "auc": auc.mean(),
                    "auc_low": auc.mean() - 1.96 * error,
                    "auc_high": auc.mean() + 1.96 * error,
                }
                table = pd.concat([table, pd.DataFrame([mean])], ignore_index=True).assign(
                    seen=False
                )
                words = describe_transfer({"detection": Result("", tables={"detection": table})})
                count += "does not, as far" not in words
            told = f"{number} unseen generators, {n} + {n} images each, AUC 0.5"
            yield "something or little carries over", told, count / (rounds // 10)


def few(rng, rounds, ckpt):
    """Top k by omega on n images of which the detector is sure, and on n others."""
    detector = load(ckpt)
    subject = Subject.of(detector, Checkpoint.read(ckpt).data.splits())
    images, lrp, shares = subject.images.discovery, LRP(detector), []
    for row in np.flatnonzero(labels_of(images) == 1):
        explanation = lrp.explain(images[0, row].image[None].float() / 255, torch.ones(1))
        if explanation.logit.sigmoid().item() >= subject.options.confidence:
            shares.append(explanation.shares[0].detach().double().numpy())
    shares, k = np.array(shares), subject.k
    for n in [n for n in (3, 9, 30, 100) if 2 * n <= len(shares)]:
        in_both = []
        for _ in range(rounds // 20):
            drawn = rng.permutation(len(shares))[: 2 * n].reshape(2, n)
            one, other = (np.argsort(-shares[rows].mean(0))[:k] for rows in drawn)
            in_both.append(len(np.intersect1d(one, other)) / k)
        yield f"the top {k} are the same", f"{n} images, mean", np.mean(in_both)
        yield f"the top {k} are the same", f"{n} images, 5th percentile", np.quantile(in_both, 0.05)


CLAIMS = {f.__name__: f for f in (channels, seeds, correlation, chance, color, lead)}


def main():
    parser = option_parser(__doc__, rounds=2000, seed=0, ckpt="")
    parser.add_argument("--only", nargs="+", choices=[*CLAIMS, "few"], default=[*CLAIMS])
    args = parser.parse_args()
    CLAIMS["few"] = partial(few, ckpt=args.ckpt)
    print("| sentence | truth | said |\n|---|---|---|")
    for name in args.only:
        for claim, truth, rate in CLAIMS[name](np.random.default_rng(args.seed), args.rounds):
            print(f"| {claim} | {truth} | {100 * rate:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
