"""Kill trainings at random moments, resume them, and compare them with an undisturbed one.

python benchmarks/kill.py [--times 20] [--workers 0] [--seed 0] [OPTION=VALUE...]

A small network with dropout is trained on tiny images twice: once undisturbed, and once killed
(SIGKILL) at random moments between start and end, each time restarted with the same command and
`resume=auto`. Weights, optimizer state and best checkpoint must be equal bit for bit, and no
incomplete file may be left. Exits with 1 otherwise.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import option_parser
from PIL import Image

from tff.startup import prepare_process

ROOT = Path(__file__).parents[1]


def tree(root, images=40, size=32):
    """Write a few real and generated images."""
    rng = np.random.default_rng(0)
    for kind, low in (("0_real", 0), ("1_fake", 90)):
        folder = root / "seen" / kind
        folder.mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(low, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def start(images, out, args, log):
    """Start `train.py` with `resume=auto` in its own process group."""
    command = [
        sys.executable, str(ROOT / "train.py"), "detector=timm", "detector.name=efficientnet_lite0",
        "detector.pretrained=false", "aug=none", "data=folder", f"data.root={images}",
        "data.size=32", "data.batch_size=4", f"data.workers={args.workers}", "logger=csv",
        "data.cache=null", "trainer.accelerator=cpu", f"trainer.max_epochs={args.epochs}",
        "callbacks.last.steps=2", "callbacks.analyze.images=2",
        "callbacks.analyze.subject.draws=20", f"hydra.run.dir={out}", "resume=auto",
        *args.options,
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True, env=env
    )


def last_step(out):
    """Global step of the last checkpoint; None without one."""
    try:
        path = out / "checkpoints" / "last.ckpt"
        return torch.load(path, map_location="cpu", weights_only=True)["global_step"]
    except FileNotFoundError:
        return None


def differing(one, other, where=""):
    """Names of the entries that differ in two nested containers of tensors."""
    if isinstance(one, dict) and one.keys() == other.keys():
        return [n for k in one for n in differing(one[k], other[k], f"{where}.{k}")]
    if isinstance(one, list) and len(one) == len(other):
        return [n for i in range(len(one)) for n in differing(one[i], other[i], f"{where}.{i}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    return [] if one == other else [where]


def main():
    parser = option_parser(__doc__, times=20, epochs=3, workers=0, seed=0)
    parser.add_argument("options", nargs="*", help="more options of train.py")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, reference, out = tree(folder / "images"), folder / "reference", folder / "killed"
        with (folder / "log.txt").open("w") as log:
            began = time.monotonic()
            if start(images, reference, args, log).wait():
                sys.exit((folder / "log.txt").read_text()[-3000:])
            life = time.monotonic() - began
            print(f"undisturbed: {life:.1f} s, {last_step(reference)} steps", flush=True)
            print("kill   after (s)   last.ckpt (step)   finished", flush=True)
            killed, lives, new_training = 0, 1, True
            while killed < args.times:
                began, wait = time.monotonic(), rng.uniform(0, life)
                process = start(images, out, args, log)
                try:
                    process.wait(wait)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                done = (out / "finished.json").is_file()
                if process.returncode == 0 and new_training:  # the machine may be less busy now
                    life = min(life, time.monotonic() - began)
                killed += process.returncode == -signal.SIGKILL
                if process.returncode not in (0, -signal.SIGKILL):
                    sys.exit((folder / "log.txt").read_text()[-3000:])
                print(f"{killed:4}   {wait:9.1f}   {last_step(out)!s:>16}   {done}", flush=True)
                new_training = done
                if done:  # finished: start another training
                    if differs := compare(reference, out):
                        sys.exit(f"different: {differs[:5]}")
                    lives += 1
                    out = folder / f"killed-{lives}"
            if start(images, out, args, log).wait():
                sys.exit((folder / "log.txt").read_text()[-3000:])
        differs = compare(reference, out)
        left = [str(p) for p in folder.rglob("*.part")]
        print(f"{killed} kills in {lives} trainings; differing: {differs[:5] or 'nothing'}")
        print(f"incomplete files: {left or 'nothing'}")
        sys.exit(1 if differs or left else 0)


def compare(reference, out):
    """Differences between two finished runs, in both checkpoints and the last metrics."""
    found = []
    for name in ("last", "best"):
        one, other = (
            torch.load(run / "checkpoints" / f"{name}.ckpt", map_location="cpu", weights_only=True)
            for run in (reference, out)
        )
        for part in ("state_dict", "optimizer_states", "global_step", "epoch"):
            found += differing(one[part], other[part], f"{name}.{part}")
    one, other = (json.loads((run / "finished.json").read_text()) for run in (reference, out))
    names = [n for n in one["metrics"] if n.startswith("val/")]
    return found + [n for n in names if one["metrics"][n] != other["metrics"].get(n)]


if __name__ == "__main__":
    prepare_process()
    main()
