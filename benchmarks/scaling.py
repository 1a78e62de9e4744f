"""Cost of passes, traffic between processes, and speedup by a second process.

python benchmarks/scaling.py [--images 48] [--size 224] [--network resnet50] [--workers 0 1 2]

One process with one thread against two processes with one thread each, on the same images: an
efficiency of 1 means twice as fast. Passes read JPEG files. Bytes are counted at the calls of
collectives. The last lines extrapolate the costs to larger data sets.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import network, option_parser, write_images
from torch import distributed

from tff.ablations.color import Grayscale
from tff.analyses.engine.subject import Subject
from tff.cli.launch import launch
from tff.data.datamodule import Splits
from tff.data.folder import Folder
from tff.data.loaders import EvaluationBatches, loader
from tff.detectors.detector import Detector
from tff.distributed import get_world_size
from tff.startup import prepare_process

SETS = {"ForenSynths": 90_329, "1 million": 10**6, "100 million": 10**8}
#: Passes of a report: FF-RS, original images, without the cue, 12 sets of dropped channels.
REPORT = ("read", "relevance", "responses", "without color", "12 choices dropped")


class Wire:
    """Counts the bytes that this process passes to collectives."""

    def __init__(self):
        self.sent = 0
        for name in ("all_gather", "all_gather_object", "broadcast_object_list"):
            setattr(distributed, name, self._counted(name, getattr(distributed, name)))

    def _counted(self, name, function):
        def call(out, *arguments, **options):
            given = arguments[0] if arguments else out
            self.sent += given.nbytes if isinstance(given, torch.Tensor) else 64
            return function(out, *arguments, **options)

        return call


def measure(_device, name, images, size, repeats):
    """Seconds and bytes sent per pass, and the peak memory in MB."""
    torch.set_num_threads(1)
    net = network(name, size)
    data = Folder(root=str(images), crop=f"center{size}").test()
    detector = Detector(net)
    subject = Subject.of(detector, Splits(data, data), device="cpu", batch_size=4)
    passes, channels = subject.passes, torch.arange(114)
    random = torch.Generator().manual_seed(0)
    draws = {str(i): torch.randperm(len(detector.channels), generator=random)[:114]
             for i in range(12)}  # fmt: skip
    everything, none = np.arange(len(data)), np.empty(0, np.int64)
    work = {
        "read": lambda: list(loader(data, EvaluationBatches(data, 4), 0)),
        "logits": lambda: passes.compute_outputs(data, None, channels[:0], none),
        "relevance": lambda: passes.compute_relevance(data, 0.0),
        "responses": lambda: passes.compute_outputs(data, None, channels, everything),
        "without color": lambda: passes.compute_outputs(data, Grayscale(), channels, everything),
        "12 choices dropped": lambda: passes.compute_outputs_without_channels(data, draws, None),
    }
    wire, found = Wire(), {}
    for what, run in work.items():
        seconds = []
        for _ in range(repeats):
            if get_world_size() > 1:
                distributed.barrier()
            wire.sent, start = 0, time.perf_counter()
            run()
            if get_world_size() > 1:
                distributed.barrier()
            seconds.append(time.perf_counter() - start)
        found[what] = float(np.median(seconds)), wire.sent
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_rates(images, size, numbers):
    """(number of workers, images per second) of reading all images in batches of 4."""
    data = Folder(root=str(images), crop=f"center{size}").test()
    for number in numbers:
        read = loader(data, EvaluationBatches(data, 4), number)
        list(read)  # starts the workers
        start = time.perf_counter()
        for _ in range(5):
            list(read)
        yield number, 5 * len(data) / (time.perf_counter() - start)


def main():
    defaults = {"images": 48, "size": 224, "network": "resnet50", "repeats": 3}
    options = option_parser(__doc__, **defaults, workers=[0, 1, 2]).parse_args()
    with tempfile.TemporaryDirectory() as images:
        # As detailed as photographs.
        write_images(Path(images) / "g", options.images, options.size + 32, 64, quality=95)
        given = (options.network, images, options.size, options.repeats)
        settings = {"accelerator": "cpu", "strategy": "ddp_spawn"}
        one, memory = launch({**settings, "devices": 1}, measure, *given)
        two, memory_of_two = launch({**settings, "devices": 2}, measure, *given)
        print(f"{options.network}, {options.images} images of {options.size} x {options.size}")
        print("pass                   ms/image   plain passes   efficiency of 2   kB sent by each")
        for what, (seconds, _) in one.items():
            cost, plain = 1000 * seconds / options.images, seconds / one["logits"][0]
            gain = seconds / (2 * two[what][0])
            print(f"{what:20s} {cost:10.1f} {plain:14.2f} {gain:17.2f} {two[what][1] / 1e3:17.0f}")
        print(f"memory of a process: {memory:.0f} MB alone, {memory_of_two:.0f} MB as one of two")
        for number, rate in read_rates(images, options.size, options.workers):
            print(f"{number} loader workers: {rate:.0f} images/s")
        total = sum(one[what][0] for what in REPORT) / options.images
        print(f"a report: {1000 * total:.0f} ms/image on one such core")
        for name, count in SETS.items():
            print(f"{name:12s} {count:12,d} images: {count * total / 3600:10.1f} core hours")


if __name__ == "__main__":
    prepare_process()
    main()
