"""Does the mediated effect find the channels through which a planted cue acts?

python benchmarks/mediation.py [--cues chroma checkerboard none] [--out outputs/mediation]
python benchmarks/mediation.py --ckpt outputs/demo/checkpoints/best.ckpt --every 30

Trains a small network (160 channels) on each planted cue, and prints the effect of color on the
decision, its share through the top channels, and rank correlations with the exact effects of all
channels: of the estimate, of one with the slope at the unchanged images only, of omega and of the
median test. Color carries all of `chroma` and nothing of `checkerboard`; `none` is the control.
With --ckpt, the same for a detector of your own and the generators it was trained on, over one
channel in EVERY. The false alarms of
"the decision uses color" and the coverage of shares are simulated (--simulations).
"""

from types import SimpleNamespace

import numpy as np
import torch
from common import option_parser
from torch import nn

from tff.ablations.color import Grayscale
from tff.analyses.engine.evaluation import evaluators
from tff.analyses.engine.subject import Subject
from tff.analyses.mediation import Mediation, is_found, mean_logits, ratio
from tff.data.datamodule import Splits
from tff.data.synthetic.planted import Planted
from tff.detectors.checkpoint import load
from tff.detectors.detector import Detector
from tff.detectors.hooks import record_outputs
from tff.startup import prepare_process
from tff.statistics.bootstrap import draw_resamples
from tff.statistics.rank_agreement import spearman
from tff.training.from_checkpoint import Checkpoint

CUE = Grayscale()


def small_network():
    """Three convolutions with 32, 64 and 64 channels, and a linear layer."""
    layers = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))


def train(images, epochs, seed):
    """Detector of generated images (N, 3, H, W), trained on random turns and flips of them."""
    torch.manual_seed(seed)
    pixels = torch.stack([images[0, row].image for row in range(len(images))])
    labels = torch.tensor(images.manifest["label"].tolist()).float()
    detector = Detector(small_network(), tff_fraction=0.06)
    optimizer = torch.optim.AdamW(detector.parameters(), 3e-3, weight_decay=0.05)
    steps = epochs * -(-len(pixels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels)).split(64):
            turned = torch.rot90(pixels[rows].float() / 255, int(torch.randint(4, ())), (2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(detector(turned), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return detector.eval()


def exact_effects(subject, flat):
    """Effects of single channels on the gap over the seen test images, (len(flat),)."""
    choices = {str(c): torch.tensor([c]) for c in flat}
    logits = {"plain": subject.evaluate().logits}
    logits |= subject.evaluate_without_channels(choices, CUE)
    of = [mean_logits(e, logits) for e in evaluators(subject) if e.seen]
    gaps = {name: np.mean([found[name].gap.value for found in of]) for name in logits}
    return np.array([gaps["plain"] - gaps[name] for name in choices])


def slope_at_images(subject):
    """Estimates on the gap over the seen test images with the slope at the unchanged images."""
    images, detector = subject.images.test, subject.detector
    layers, found = detector.channels.layers, []
    generators = [rows for name, rows in subject.generators() if name in subject.seen]
    for rows in generators:
        effects = []
        for part in np.array_split(rows, -(-len(rows) // 32)):
            pixels = torch.stack([images[0, int(row)].image for row in part]).float() / 255
            with torch.no_grad(), record_outputs(detector, layers) as without:
                detector(CUE(pixels))
            with record_outputs(detector, layers) as maps:
                logits = detector(pixels.requires_grad_())
            slopes = torch.autograd.grad(logits.sum(), [maps[layer] for layer in layers])
            parts = [
                ((maps[layer].detach() - without[layer]) * slope).sum((2, 3))
                for layer, slope in zip(layers, slopes, strict=True)
            ]
            effects.append(torch.cat(parts, 1).numpy())
        effects, fake = np.concatenate(effects), subject.labels[rows] == 1
        found.append(effects[fake].mean(0) - effects[~fake].mean(0))
    return np.mean(found, axis=0)


def show(name, subject, every):
    """Print findings, and rank correlations with the exact effects."""
    result = Mediation(CUE)(subject)
    table = result.tables["mediation_all"]
    print(f"\n## {name}")
    for finding in result.findings:
        print(f"- {finding}")
    flat = np.arange(0, len(subject.channels), every)
    one_sided = slope_at_images(subject)[flat]
    exact = exact_effects(subject, flat.tolist())
    place = np.argsort(table["layer"].map(subject.channels.starts) + table["channel"])
    by_flat = table.iloc[place].reset_index(drop=True).iloc[flat]
    pairs = {
        "estimate on the same images": (by_flat["estimate_seen"], exact),
        "estimate on validation images": (by_flat["mediated"], exact),
        "estimate with the slope at the unchanged images only": (one_sided, exact),
        "omega, with the size of the effect": (by_flat["omega"], np.abs(exact)),
        "median test (-p), with the size": (-by_flat["p_value"], np.abs(exact)),
    }
    for what, (one, other) in pairs.items():
        rho = spearman(np.asarray(one, float), other)
        print(f"- Spearman over {len(flat)} channels, {what}: {rho:+.2f}")
    large = np.argsort(-np.abs(exact))[:10]
    slope = np.median(by_flat["estimate_seen"].to_numpy()[large] / exact[large])
    print(f"- estimate / exact, median of the ten largest: {slope:.2f}")


def simulate(simulations, draws, images):
    """Print how often an effect is asserted where there is none, and how often shares are right.

    Effects of the cue are normal with standard deviation 1: around 0, and in the second case
    around 1 for generated images, 60 % of which flows through the patched channels.
    """
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], images)
    found, covered, known = 0, 0, 0
    for number in range(simulations):
        resamples = draw_resamples(labels, draws, number)
        evaluator = SimpleNamespace(labels=labels, rows=np.arange(2 * images), resamples=resamples)
        noise, more = rng.normal(size=(2, 2 * images))
        logits = {
            "nothing": noise,
            "total": noise + labels,
            "part": 0.5 * noise + 0.3 * more + 0.6 * labels,
        }
        gaps = {name: of.gap for name, of in mean_logits(evaluator, logits).items()}
        found += is_found(gaps["nothing"])
        share = ratio(gaps["part"], gaps["total"])
        if np.isfinite(share.value):
            known += 1
            covered += share.low <= 0.6 <= share.high
    print(f"\n## Simulation: {images} + {images} images, {simulations} times")
    print(f"- an effect is asserted where there is none: {100 * found / simulations:.1f} %")
    print(
        f"- the share is given in {100 * known / simulations:.0f} %; its interval covers the true "
        f"share in {100 * covered / max(known, 1):.1f} % of them"
    )


def main():
    parser = option_parser(__doc__, out="outputs/mediation", epochs=6, seed=0, draws=500, every=1)
    parser.add_argument("--cues", nargs="*", default=["chroma", "checkerboard", "none"])
    parser.add_argument("--ckpt", help="detector to be measured in place of trained ones")
    parser.add_argument("--train", type=int, default=1500, help="training images per label")
    parser.add_argument("--simulations", type=int, default=1000)
    args = parser.parse_args()
    if args.ckpt:
        splits = Checkpoint.read(args.ckpt).data.splits()
        seen = Splits(splits.discovery, splits.test.select(splits.discovery.generators, None))
        show(args.ckpt, Subject.of(load(args.ckpt), seen, draws=args.draws), args.every)
        return
    for cue in args.cues:
        counts = {"train": args.train, "val": 200, "test": 100}
        data = Planted(args.out, cue=cue, counts=counts, seed=args.seed)
        detector = train(data.images("train"), args.epochs, args.seed)
        images = Splits(data.discovery(), data.test().select(list({cue, "none"}), None))
        subject = Subject.of(detector, images, confidence=0.5, draws=args.draws)
        show(f"trained on {cue}", subject, args.every)
    for images in (20, 100):
        simulate(args.simulations, args.draws, images)


if __name__ == "__main__":
    prepare_process()
    main()
