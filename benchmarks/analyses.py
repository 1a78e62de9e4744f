"""Cost of all analyses of a report relative to one forward pass over the same images.

python benchmarks/analyses.py [--images 40] [--size 224] [--network resnet50] [--sample 250]

Ranking, sensitivity (k of the paper, 10 random and 10 matched draws), ablation, and tests of all
channels, on random images. A pass runs the network forward over all test images. The limit is 30
forward passes.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from common import network, option_parser, write_images

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.engine.analysis import run
from tff.analyses.engine.passes import Passes
from tff.analyses.engine.subject import Subject
from tff.analyses.median_test import MedianTest
from tff.analyses.ranking import Ranking
from tff.analyses.sensitivity import Sensitivity
from tff.data.datamodule import Splits
from tff.data.folder import Folder
from tff.detectors.detector import Detector
from tff.startup import prepare_process

LIMIT = 30


class Counted(Passes):
    """Passes that count how often the network runs over the images."""

    found: ClassVar[Counter[str]] = Counter()

    def compute_relevance(self, *arguments):
        self.found["relevance (forward and back)"] += 1
        return super().compute_relevance(*arguments)

    def compute_outputs(self, images, ablation, channels, sample):
        self.found["forward" + (", maxima of all channels" if len(sample) else "")] += 1
        return super().compute_outputs(images, ablation, channels, sample)

    def compute_outputs_without_channels(self, images, choices, instead):
        self.found["forward, channels dropped"] += len(choices)
        return super().compute_outputs_without_channels(images, choices, instead)


def main():
    args = option_parser(
        __doc__, images=40, size=224, network="resnet50", sample=250, batch=4
    ).parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "generator", args.images, args.size, 16)
        images = Folder(root=folder, cache=None).images("all")
        detector = Detector(network(args.network, args.size))
        subject = Subject.of(
            detector, Splits(images, images), device="cpu", confidence=0.0,
            batch_size=args.batch, sample=args.sample,
        )  # fmt: skip
        subject._passes = Counted(**vars(subject.passes))
        nothing = np.empty(0, np.int64), torch.empty(0, dtype=torch.int64)

        def plain():
            start = time.perf_counter()
            Passes.compute_outputs(subject.passes, images, None, nothing[1], nothing[0])
            return time.perf_counter() - start

        plain()
        before = plain()
        analyses = {
            "ranking": Ranking(),
            "sensitivity": Sensitivity(),
            "ablation": Ablation(Grayscale()),
            "median_test": MedianTest(Grayscale()),
        }
        start = time.perf_counter()
        run(analyses, subject)
        total = time.perf_counter() - start
        one = (before + plain()) / 2
    channels = len(subject.channels)
    print(f"{args.network}, {args.images} images of {args.size} px, {channels:,} channels")
    for what, passes in Counted.found.items():
        print(f"{passes:3} x {what}")
    print(f"a plain pass {one:.1f} s; all analyses {total:.1f} s")
    print(f"ratio {total / one:.1f}, limit {LIMIT}")


if __name__ == "__main__":
    prepare_process()
    main()
