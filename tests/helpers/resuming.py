"""A tiny training that can be killed anywhere and taken up again, for several tests."""

from functools import partial

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tests.helpers import tiny
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException

from tff.data.folder import Folder
from tff.detectors.detector import Detector
from tff.detectors.safe_load import read
from tff.training.checkpointing import AtomicCheckpointIO, Last
from tff.training.fit import fit
from tff.training.module import UniversalDetector
from tff.training.resume import SeedEachStep
from tff.training.schedule import Plateau
from tff.training.signals import Interrupt


class Killed(BaseException):
    """Stands for SIGKILL where a process of its own would take too long."""


class Kill(pl.Callback):
    """Die at the n-th time that a hook is called."""

    def __init__(self, hook, count):
        self.count = count
        setattr(self, hook, self.strike)

    def strike(self, *_):
        self.count -= 1
        if self.count == 0:
            raise Killed


class Seen(pl.Callback):
    """What validation, schedule and network saw, in the end a list for each step."""

    def __init__(self):
        self.rates, self.metrics, self.losses = {}, {}, {}

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        place = trainer.current_epoch, index
        self.rates[place] = trainer.optimizers[0].param_groups[0]["lr"]
        self.losses[place] = float(outputs["loss"])

    def on_validation_end(self, trainer, *_):
        metrics = trainer.callback_metrics
        self.metrics[trainer.global_step] = {
            name: float(value) for name, value in metrics.items() if name.startswith("val/")
        }


def detector():
    """One that draws: dropout before its last layer."""
    found = tiny.detector()
    network = found.network
    network.fc = nn.Sequential(nn.Dropout(0.5), network.fc)
    return Detector(network, tff_fraction=0.25)


def train(
    root, out, ckpt=None, *, kill=None, schedule="plateau", workers=0, steps=1,
    origin=None, net=detector, callbacks=(), epochs=3, batch_size=4, **trainer,
):  # fmt: skip
    """Train, perhaps until killed; what was seen, and the metrics (None when killed)."""
    pl.seed_everything(5 if ckpt is None else 77, verbose=False)  # a resumed one needs no seed
    data = Folder(root=str(root), batch_size=batch_size, size=32, workers=workers)
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=2e-3)
    module = UniversalDetector(
        net(), partial(torch.optim.Adam, lr=1e-3), cycle if schedule == "onecycle" else None,
        origin=origin or {},
    )  # fmt: skip
    folder, seen = out / "checkpoints", Seen()
    last = Last(str(folder), steps=steps)
    interrupt = Interrupt(last)
    made = [
        interrupt, SeedEachStep(5), seen, *callbacks,
        *([Plateau("val/accuracy", 1, smallest=1e-4)] if schedule == "plateau" else []),
        ModelCheckpoint(folder, "best", "val/loss", mode="min", enable_version_counter=False),
        last,
        *([kill] if kill else []),
    ]  # fmt: skip
    options = {"accelerator": "cpu", "devices": 1, "max_epochs": epochs, "logger": False}
    runner = pl.Trainer(
        **(options | trainer), callbacks=made, num_sanity_val_steps=0, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, plugins=[AtomicCheckpointIO()],
        default_root_dir=out,
    )  # fmt: skip
    try:
        with interrupt:
            return seen, fit(runner, module, data, ckpt, interrupt)
    except (Killed, ProcessExitedException):
        return seen, None


def together(first, then):
    """What two parts of a training saw; where both did, it must be the same."""
    for name in ("rates", "metrics", "losses"):
        one, two = getattr(first, name), getattr(then, name)
        for step in one.keys() & two.keys():
            assert one[step] == two[step], (name, step)
        yield name, one | two


def same(one, other, names=("last", "best")):
    """Weights, optimizer, schedules and progress of two runs are equal to the last bit."""
    for name in names:
        mine, theirs = (read(run / "checkpoints" / f"{name}.ckpt") for run in (one, other))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            equal(mine[part], theirs[part], f"{name}.{part}")
        for callback in ("Plateau",):
            equal(mine["callbacks"].get(callback), theirs["callbacks"].get(callback), callback)


def equal(one, other, where):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            equal(mine, theirs, f"{where}[{i}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where
