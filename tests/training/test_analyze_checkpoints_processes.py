"""Analyses on two training processes: errors of one of them, and signals."""

import os
import signal
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import DDPStrategy
from tests.helpers import tiny

from tff.analyses.detection import Detection
from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.subject import Subject
from tff.data.folder import Folder
from tff.detectors.safe_load import read
from tff.distributed import get_rank
from tff.training.analyze_checkpoints import AnalyzeCheckpoints
from tff.training.checkpointing import Last
from tff.training.fit import fit
from tff.training.module import UniversalDetector
from tff.training.signals import Interrupt, StoppedBySignal
from tff.types import Result

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Odd:
    """A cue that fails in one process, in the middle of a pass."""

    cue = "luck"

    def __call__(self, image):
        if get_rank() == 1:
            raise OSError("process 1 lost a file")
        return image


@dataclass(frozen=True)
class Failing(Analysis):
    """All processes fail, or one of them at some place."""

    where: str

    def answer(self, subject):
        subject.evaluate(Odd() if self.where == "in a pass" else None)
        if self.where == "everywhere" or get_rank() == 1:
            raise MemoryError(f"failed {self.where}")
        if self.where == "between passes":
            none = {"none": torch.tensor([0])}
            subject.evaluate_without_channels(none)
        return Result("unreachable")


@dataclass(frozen=True)
class Interrupted(Analysis):
    """One process gets a signal meanwhile."""

    def answer(self, subject):
        if get_rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return Result("done")


@dataclass(frozen=True)
class Unwanted(Analysis):
    """Should not be asked any more."""

    def answer(self, subject):
        raise AssertionError("went on")


def not_the_second(*arguments, weights, **options):
    """A subject that one process cannot make at the second checkpoint."""
    if get_rank() == 1 and weights == "step 6":
        raise MemoryError("no room for it")
    return Subject.of(*arguments, weights=weights, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), images=20, size=32)


def train(root, out, analyses, subject=Subject.of, best=(), **options):
    """Two epochs on two processes; one that waits in vain for the other fails."""
    pl.seed_everything(1, verbose=False)
    data = Folder(root=str(root), batch_size=4, size=32, workers=0)
    module = UniversalDetector(tiny.detector(), partial(torch.optim.Adam, lr=1e-3))
    last = Last(folder := str(out / "checkpoints"))
    interrupt = Interrupt(last)
    made = partial(subject, draws=10, confidence=0.5, batch_size=4)
    callbacks = [
        interrupt, *best, last,
        AnalyzeCheckpoints(analyses, made, 4, folder, **options),
    ]  # fmt: skip
    gloo = {"process_group_backend": "gloo", "timeout": timedelta(seconds=50)}
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="spawn", **gloo),
        max_epochs=2, limit_train_batches=3, callbacks=callbacks, logger=False,
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, default_root_dir=out,
    )  # fmt: skip
    return fit(trainer, module, data, None, interrupt)


def pages(out):
    found = sorted((out / "checkpoints").glob("step*"))
    return {int(path.name[4:]): (path / "index.html").read_text() for path in found}


def test_errors_leave_the_training_and_the_other_analyses(root, tmp_path):
    places = ("everywhere", "in a pass", "between passes", "after all")
    analyses = {where: Failing(where) for where in places} | {"detection": Detection()}
    assert "val/accuracy" in train(root, tmp_path, analyses, not_the_second)
    found = pages(tmp_path)
    assert sorted(found) == [3, 6]
    assert "everywhere failed (MemoryError): failed everywhere" in found[3]
    assert "process 1 of 2: process 1 lost a file" in found[3]
    assert "process 1 of 2: failed between passes" in found[3]
    assert "process 1 of 2: failed after all" in found[3]
    assert (tmp_path / "checkpoints/step000003/tables/detection.csv").is_file()
    assert "process 1 of 2: no room for it" in found[6]


def test_or_the_error_of_one_ends_all(root, tmp_path):
    with pytest.raises(Exception, match="between passes"):
        train(root, tmp_path, {"bad": Failing("between passes")}, on_error="raise")
    assert not pages(tmp_path)


@pytest.mark.parametrize(("every", "step"), [(None, 3), (2, 2)])
def test_a_signal_to_one_of_them_ends_all_before_the_next_analysis(every, step, root, tmp_path):
    """Whether all is saved already, or only for the analysis."""
    analyses = {"first": Interrupted(), "second": Unwanted()}
    folder = tmp_path / "checkpoints"
    best = [ModelCheckpoint(folder, "best", every_n_train_steps=every)] if every else []
    with pytest.raises(StoppedBySignal) as stopped:
        train(root, tmp_path, analyses, best=best, on_error="raise")
    assert stopped.value.number == signal.SIGUSR1
    assert not pages(tmp_path)
    assert read(folder / "last.ckpt")["global_step"] == step
