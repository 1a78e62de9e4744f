"""Which ranking finds the channels that a detector needs?

python benchmarks/rankings.py [--detectors demo chroma checkerboard highfreq] [--seeds 0 1 2]
                              [--folder DIR --seen GENERATOR ...] [--out outputs/rankings]

Trains a detector per seed (if OUT holds none): that of the demo, those of planted cues, and one on
the images of the generators `--seen` in a folder of your own, tested on all others. `k_sweep` holds
the rankings against each other. The table has for each of them, on seen and unseen generators, the
score (how much better than random orders matched in layer, mean over log k, with the interval of
one more order; `*` where it excludes 0), and AP with the first 1, 5, paper's k and 2 % of the
channels dropped. The last table counts the seeds in which a ranking beats its matched orders.

A try in minutes: --detectors demo --seeds 0 --rankings omega contrast --draws 3 --ks 1 21
    --train trainer.max_epochs=1 trainer.check_val_every_n_epoch=1 data.steps=5
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
from common import option_parser

from tff.analyses.engine.top_channels import CRITERIA
from tff.data.synthetic.planted_cues import CUES
from tff.startup import prepare_process

ROOT = Path(__file__).resolve().parent.parent
RANKINGS = [by for by in CRITERIA if by != "random"]
KS = ["1", "5", "0.43%", "2%"]


def settings(detector, args):
    """Options of train.py for a detector."""
    if detector == "demo":
        return ["experiment=demo"]
    if detector != "folder":
        return ["experiment=planted", f"data.cue={detector}"]
    tree = Path(args.folder).expanduser().resolve()
    generators = sorted(p.name for p in tree.iterdir() if p.is_dir() and p.name not in args.seen)
    others = [f"data.test_only=[{','.join(generators)}]"] if args.seen and generators else []
    return ["experiment=demo", "data=folder", f"data.root={tree}", *others]


def run(script, log, *options):
    """Run a script of the project; its output goes to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"{script} {log.stem}: {log}", file=sys.stderr)
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, script, *options]
        if subprocess.run(command, cwd=ROOT, stdout=stream, stderr=stream).returncode:
            raise RuntimeError(f"python {' '.join(command[1:])}: failed, see {log}")


def measure(detector, seed, args, out):
    """Tables `k_sweep_area` and `k_sweep` of the detector of a seed, which is trained first."""
    folder = out / f"{detector}-{seed}"
    ckpt = folder / "checkpoints" / "best.ckpt"
    if not (folder / "finished.json").exists():
        options = [*settings(detector, args), f"seed={seed}", "callbacks.analyze=null"]
        run("train.py", out / f"{folder.name}.train.log", *options, *args.train,
            f"hydra.run.dir={folder}")  # fmt: skip
    run(
        "analyze.py", out / f"{folder.name}.analyze.log", f"ckpt={ckpt}", "analysis=[k_sweep]",
        f"analysis.k_sweep.rankings=[{','.join(args.rankings)}]",
        f"analysis.k_sweep.ks=[{','.join(args.ks)}]",
        f"analysis.k_sweep.instead=[{args.instead}]",
        f"analysis.k_sweep.random_orders={args.draws}",
        f"subject.confidence={args.confidence}", *args.analyze,
        f"passes={folder / 'passes'}", f"hydra.run.dir={folder / 'rankings'}",
    )  # fmt: skip
    tables = folder / "rankings" / "report" / "tables"
    return [pd.read_csv(tables / f"{name}.csv") for name in ("k_sweep_area", "k_sweep")]


def show(detector, seed, area, points):
    """Print a row per group of generators and ranking."""
    plain = points[points["k"] == 0].groupby("where")["ap"].first()
    for row in area.to_dict("records"):
        where, by = row["where"], row["ranking"]
        part = points[(points["where"] == where) & (points["ranking"] == by) & (points["k"] > 0)]
        score, low, high = (row[f"beats_matched_by{end}"] for end in ("", "_low", "_high"))
        aps = ", ".join(f"{p.k}: {p.ap:.3f} ({p.matched:.3f})" for p in part.itertuples())
        print(
            f"| {detector} {seed} | {where} {plain[where]:.3f} | {by} | {score:+.3f} "
            f"({low:+.3f} to {high:+.3f}){' *' * (low > 0)} | {aps} |",
            flush=True,
        )


def main():
    parser = option_parser(
        __doc__, seeds=[0, 1, 2], folder="", seen=[""], out="outputs/rankings", draws=10, ks=KS,
        confidence=0.5, train=[""], analyze=[""],
    )  # fmt: skip
    known = ["demo", *CUES, "folder"]
    parser.add_argument("--detectors", nargs="*", choices=known, default=None)
    parser.add_argument("--rankings", nargs="+", choices=RANKINGS, default=RANKINGS)
    parser.add_argument("--instead", choices=["zero", "mean", "resample", "insert"], default="zero")
    args = parser.parse_args()
    for name in ("seen", "train", "analyze"):
        setattr(args, name, [one for one in getattr(args, name) if one])
    default = ["folder"] if args.folder else ["demo", "chroma", "checkerboard", "highfreq"]
    out = Path(args.out).expanduser().resolve()
    print("| detector, seed | tested on, AP | ranking | score | AP without k (matched) |")
    print("|---|---|---|---|---|")
    counts = {}
    for detector in default if args.detectors is None else args.detectors:
        for seed in args.seeds:
            area, points = measure(detector, seed, args, out)
            show(detector, seed, area, points)
            for row in area.to_dict("records"):
                key = (detector, row["where"], row["ranking"])
                counts.setdefault(key, []).append(row["beats_matched_by_low"] > 0)
    print("\n| detector | tested on | ranking | seeds in which it beats its matched orders |")
    print("|---|---|---|---|")
    for (detector, where, by), held in counts.items():
        print(f"| {detector} | {where} | {by} | {sum(held)} of {len(held)} |")


if __name__ == "__main__":
    prepare_process()
    main()
