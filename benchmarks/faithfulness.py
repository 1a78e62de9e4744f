"""Which relevance rule tells what a transformer goes by: units and pixels dropped by relevance.

python benchmarks/faithfulness.py CKPT [--images 48] [--ks 5 21 96] [--generators G] [--attention]

CKPT: a checkpoint of a transformer with data of its own. For each rule of linear layers, on its
test images:

units: the first k by omega, ranked on validation images, are dropped, and AP is measured; the
lower, the better. Beside them contrast, which needs no rule, and random units.

pixels: squares of the image are replaced by the mean color of the image, those with the largest
relevance first, and the logit of generated images is measured after each tenth. The mean over the
tenths is compared with that of random orders: by how much the logit is lower, as a share of its
fall when all is replaced. Below 0: worse than random.
"""

import argparse

import numpy as np
import torch
from torch.nn import functional as F

from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import RankingRule
from tff.relevance.lrp import LRP
from tff.startup import prepare_process
from tff.statistics.detection import average_precision
from tff.training.from_checkpoint import Checkpoint

RULES = {
    "epsilon": {"rule": "auto"},
    "gamma 0.05": {"rule": "gamma", "gamma": 0.05},
    "gamma 0.25": {"rule": "gamma", "gamma": 0.25},
    "gamma 1": {"rule": "gamma", "gamma": 1.0},
    "zplus": {"rule": "zplus"},
}
SQUARES = 8  # along a side
DRAWS = 5  # random orders


def drop_units(subject, labels, ks):
    """AP without the first k units, for each k."""
    order = subject.ranking
    logits = subject.evaluate_without_channels({str(k): order[:k] for k in ks})
    return [average_precision(labels, logits[str(k)]) for k in ks]


def hide_squares(image, order):
    """The image with 0, 1, ..., 10 tenths of its squares replaced, (11, 3, H, W)."""
    side = SQUARES
    number = torch.arange(side * side).view(1, 1, side, side)
    place = torch.empty(side * side, dtype=torch.float32)
    place[order] = torch.arange(side * side, dtype=torch.float32)
    place = F.interpolate(place[number], size=image.shape[1:], mode="nearest")[0]
    mean = image.mean((1, 2), keepdim=True)
    return torch.stack([
        torch.where(place < tenth / 10 * side * side, mean, image) for tenth in range(11)
    ])  # fmt: skip


def fall(detector, image, order):
    """Mean logit over the tenths, as a share of the way from the image to none of it."""
    with torch.inference_mode():
        logits = detector(hide_squares(image, order)).double().numpy()
    return (logits[0] - logits.mean()) / (logits[0] - logits[-1])


def drop_pixels(detector, lrp, images):
    """Falls minus those of random orders, one for each image whose logit falls at all."""
    generator, found = torch.Generator().manual_seed(0), []
    for image in images:
        relevance = lrp.explain(image[None], pixels=True).pixels[0].sum(0)
        heat = F.adaptive_avg_pool2d(relevance[None, None], SQUARES).flatten()
        own = fall(detector, image, heat.argsort(descending=True))
        drawn = [
            fall(detector, image, torch.randperm(SQUARES**2, generator=generator))
            for _ in range(DRAWS)
        ]
        found.append(own - np.mean(drawn))
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ckpt")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--ks", type=int, nargs="+", default=[5, 21, 96])
    parser.add_argument("--generators", nargs="*", help="of the test images; all by default")
    parser.add_argument("--attention", action="store_true", help="also AttnLRP")
    args = parser.parse_args()
    checkpoint = Checkpoint.read(args.ckpt)
    splits = checkpoint.data.splits()
    if args.generators:
        chosen = splits.test.manifest["generator"].isin(args.generators)
        rows = splits.test.manifest[chosen].reset_index(drop=True)
        splits = splits._replace(test=type(splits.test)(rows))
    detector = checkpoint.rebuild().eval()
    attention = ("cp", "attnlrp") if args.attention else ("cp",)
    rules = {
        name if kind == "cp" else f"{name}, AttnLRP": options | {"attention": kind}
        for kind in attention
        for name, options in RULES.items()
    }
    options = {"confidence": 0.5, "device": "cpu"}
    labels = splits.test.manifest["label"].to_numpy()
    plain = Subject.of(detector, splits, **options).evaluate().logits
    print(f"AP {average_precision(labels, plain):.3f}")
    print(f"| rule | AP without the first {args.ks} units | pixels: fall beyond random, 95 % |")
    print("|---|---|---|")
    for by in ("contrast", "random"):
        subject = Subject.of(detector, splits, ranking=RankingRule(by), **options)
        aps = ", ".join(f"{ap:.3f}" for ap in drop_units(subject, labels, args.ks))
        print(f"| {by} | {aps} | |", flush=True)
    fakes = np.flatnonzero(labels == 1)
    fakes = fakes[:: max(1, len(fakes) // args.images)][: args.images]
    images = [splits.test[0, int(row)].image.float() / 255 for row in fakes]
    with torch.inference_mode():
        images = [image for image in images if detector(image[None]).item() > 0]
    for name, rule in rules.items():
        subject = Subject.of(
            detector, splits, relevance=lambda d, rule=rule: LRP(d, **rule), **options
        )
        aps = ", ".join(f"{ap:.3f}" for ap in drop_units(subject, labels, args.ks))
        falls = drop_pixels(detector, LRP(detector, **rule), images)
        reach = 1.96 * falls.std(ddof=1) / len(falls) ** 0.5
        print(
            f"| {name} | {aps} | {falls.mean():+.3f} ({falls.mean() - reach:+.3f} to "
            f"{falls.mean() + reach:+.3f}), {len(falls)} images |",
            flush=True,
        )


if __name__ == "__main__":
    prepare_process()
    main()
