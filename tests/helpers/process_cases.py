"""Started by test_launch.py: python process_cases.py CASE IMAGES OUT, or under torchrun."""

import os
import sys
from pathlib import Path

import torch
from torch import distributed

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.detection import Detection
from tff.analyses.engine.analysis import run
from tff.analyses.k_sweep import KSweep
from tff.analyses.median_test import MedianTest
from tff.analyses.mediation import Mediation
from tff.analyses.ranking import Ranking
from tff.analyses.sensitivity import Sensitivity
from tff.cli.launch import launch, manage_processes
from tff.distributed import get_rank
from tff.report.page import write


class Trouble(Grayscale):
    """A cue with which some processes cannot cope."""

    def __init__(self, what, ranks):
        object.__setattr__(self, "what", what)
        object.__setattr__(self, "ranks", ranks)

    def __call__(self, image):
        rank = get_rank()
        if rank in self.ranks:
            if self.what == "value":
                raise ValueError(f"picture of process {rank} is odd")
            if self.what == "bug":
                raise IndexError(f"bug of process {rank}")
            os._exit(3)
        return super().__call__(image)


def cue(case):
    return {
        "one": Trouble("value", {1}),
        "all": Trouble("value", {0, 1, 2}),
        "bug": Trouble("bug", {1}),
        "killed": Trouble("killed", {1}),
    }.get(case, Grayscale())


def work(device, case, images, out):
    torch.set_num_threads(1)
    of = Path(images)
    if case == "files":
        if get_rank() == 1:
            raise ValueError("only process 1 sees this")
        distributed.barrier()
    # 3 batches, or 1 for `few`: of three processes one or two see no image.
    network = tiny.transformer() if case == "transformer" else None
    subject = tiny.subject(of, network, batch_size=100 if case == "few" else 11, confidence=0.5)
    ablation = cue(case)
    analyses = {
        "detection": Detection(),
        "ranking": Ranking(),
        "sensitivity": Sensitivity(random_draws=2),
        "ablation": Ablation(ablation),
        "median": MedianTest(ablation),
        "mediation": Mediation(ablation, random_draws=2),
    }
    if case == "transformer":  # the mean of a head is a vector
        analyses["k_sweep"] = KSweep(("omega",), [3], instead=("mean",), random_orders=2)
    results = run(analyses, subject)
    if get_rank() == 0:
        write(results, Path(out), {})
    return len(results)


if __name__ == "__main__":
    case, images, out = sys.argv[1:4]
    if case == "plain":
        distributed.init_process_group("gloo")
        work("cpu", case, images, out)
        distributed.destroy_process_group()
    else:
        devices = int(sys.argv[4])
        strategy = sys.argv[5] if len(sys.argv) > 5 else "ddp_spawn"
        before = os.environ.get("MASTER_PORT")
        with manage_processes():
            trainer = {"accelerator": "cpu", "devices": devices, "strategy": strategy}
            print("answers:", launch(trainer, work, case, images, out))
        assert os.environ.get("MASTER_PORT") == before
