"""Do 95 % intervals hold where images come from few photographs? Over images, and over photographs.

python benchmarks/groups.py [--photographs 2 4 7 10 30 100] [--crops 25] [--repeats 400]

Scores of crops are normal; a part of their variance (--effect) is that of the photograph, the rest
that of the crop. Generated images score 1.5 standard deviations higher (AP 0.85). `apart`: real and
generated images are crops of other photographs; `shared`: of the same ones, as with counterparts.
The table says in how many of 100 cases the interval of AP, and of the share of generated images
that are caught, holds the value of an endless number of photographs, and how wide it is.
"""

import numpy as np
from common import option_parser
from scipy.stats import norm

from tff.statistics.bootstrap import draw_resamples
from tff.statistics.detection import average_precision, measures

DISTANCE = 1.5
MEASURES = ("ap", "fake_accuracy")


def draw_scores(photographs, crops, effect, shared, random):
    """Labels, scores and photographs of the images of a test set."""
    photo = random.normal(size=(2, photographs, 1))
    if shared:
        photo[1] = photo[0]
    crop = random.normal(size=(2, photographs, crops))
    scores = np.sqrt(effect) * photo + np.sqrt(1 - effect) * crop
    scores[1] += DISTANCE
    labels = np.repeat([0, 1], photographs * crops)
    groups = np.repeat(np.arange(2 * photographs), crops)
    return labels, scores.ravel(), groups % photographs if shared else groups


def intervals(labels, scores, groups, draws, seed):
    """Measure -> its estimate."""
    called = scores > DISTANCE / 2
    rows = draw_resamples(labels, draws, seed, groups)
    found = measures(labels, scores, called, called.astype(float), rows, groups)
    return {name: found[name] for name in MEASURES}


def true_values(random):
    """Values of an endless number of images."""
    labels = np.repeat([0, 1], 500_000)
    scores = random.normal(size=len(labels)) + DISTANCE * labels
    return {"ap": average_precision(labels, scores), "fake_accuracy": norm.cdf(DISTANCE / 2)}


def main():
    parser = option_parser(
        __doc__, photographs=[2, 4, 7, 10, 30, 100], crops=25, repeats=400, draws=300, seed=0,
        effect=[0.0, 0.25],
    )  # fmt: skip
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    truth = true_values(random)
    columns = [f"{name} {unit}" for name in MEASURES for unit in ("images", "photographs")]
    print(f"{'effect':>7} {'photographs':>18} {'':>4}", *(f"{c:>26}" for c in columns))
    for effect in args.effect:
        for shared in (False, True):
            for number in args.photographs:
                held, width = np.zeros(len(columns)), np.zeros(len(columns))
                for seed in range(args.repeats):
                    labels, scores, groups = draw_scores(number, args.crops, effect, shared, random)
                    found = [intervals(labels, scores, g, args.draws, seed) for g in (None, groups)]
                    for i, (name, unit) in enumerate(
                        (name, unit) for name in MEASURES for unit in found
                    ):
                        low, high = unit[name].interval
                        held[i] += low <= truth[name] <= high
                        width[i] += high - low
                cells = (
                    f"{100 * h / args.repeats:15.0f} % ({w / args.repeats:.3f})"
                    for h, w in zip(held, width, strict=True)
                )
                kind = "shared" if shared else "apart"
                print(f"{effect:7.2f} {number:11d} {kind:>11}", *cells, flush=True)


if __name__ == "__main__":
    main()
