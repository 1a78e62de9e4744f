"""Checkpoints for resuming: written atomically, also within an epoch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from tff.atomic import write_atomically
from tff.detectors.safe_load import read
from tff.options import PATH, checked, number, whole
from tff.training.restore import PROGRESS, select_restorable
from tff.training.resume import fingerprint_images, require_same_images


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically; reads what a training may restore, and removes single files.

    Lightning writes to the folder of temporary files and moves the file; between file systems that
    is a copy, which may be cut short. Where the disk is full, the former checkpoint is unchanged.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        # Opened here, since errors of torch's own writer do not say what went wrong.
        with write_atomically(Path(path), lasting=True) as part, part.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        content = read(path)
        # Weights alone: Lightning hands them over from a process that it has spawned.
        if all(isinstance(value, Tensor) for value in content.values()):
            return content
        return select_restorable(content, path)

    def remove_checkpoint(self, path: str | Path) -> None:
        # Lightning would remove folders, and files of other machines.
        if Path(path).suffix == ".ckpt":
            Path(path).unlink(missing_ok=True)


class Best(ModelCheckpoint):
    """Writes `best.ckpt` where a metric is best; Lightning's own also writes it where it is NaN."""

    @property
    def state_key(self) -> str:
        # Of checkpoints that were written before this class was.
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        known = current is not None and not bool(torch.isnan(current))
        return known and super().check_monitor_top_k(trainer, current)


class Last(Checkpoint):
    """Writes `last.ckpt` at the end of each epoch, and at intervals within one.

    Within an epoch it is written after an optimizer step; a validation that is due after that step
    runs when the training is resumed. The checkpoint holds all metrics, so that schedule, best
    checkpoint and summary know the last validation. It must follow `best` in the list of callbacks,
    whose state then includes the epoch.

    Args:
        dirpath: folder of the checkpoints.
        minutes: interval in minutes of training; None: none.
        steps: interval in optimizer steps; None: none.

    Raises:
        ValueError: an interval is not above 0, or a checkpoint was trained on other images.
    """

    @checked("callbacks.last")
    def __init__(
        self,
        dirpath: Annotated[str | Path, PATH],
        minutes: Annotated[float, number(above=0)] | None = 30,
        steps: Annotated[int, whole(1)] | None = None,
    ) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.minutes, self.steps = minutes, steps
        #: Number of checkpoints written.
        self.written = 0
        self._before = 0
        self._when = time.monotonic()
        self._validation_follows = False
        self._metrics: dict[str, float] = {}
        self._images: dict[str, Any] | None = None

    def save(self, trainer: Trainer, validation_follows: bool = False) -> None:
        """Write the checkpoint; all ranks must call it.

        Args:
            validation_follows: a validation is due, and a resumed training runs it first.
        """
        self._validation_follows = validation_follows
        trainer.save_checkpoint(self.path, weights_only=False)
        self._validation_follows, self._when = False, time.monotonic()
        self.written += 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._when = time.monotonic()
        # Lightning forgets the position of the loader where a schedule uses the number of steps.
        trainer.fit_loop._load_combined_loader_states()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._before = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step != self._before and self._due(trainer, step):  # the batch has completed a step
            self.save(trainer, is_validation_due(trainer))

    def _due(self, trainer: Trainer, step: int) -> bool:
        if self.steps and step % self.steps == 0:
            return True
        if self.minutes is None:
            return False
        late = time.monotonic() - self._when >= 60 * self.minutes
        return trainer.strategy.reduce_boolean_decision(late, all=False)  # clocks differ

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._images is None:
            self._images = fingerprint_images(trainer)
        checkpoint[PROGRESS] = {
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
            "images": self._images,
        }
        if self._validation_follows:
            set_validation_pending(checkpoint["loops"]["fit_loop"])

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        progress = checkpoint.get(PROGRESS, {})
        self._metrics = progress.get("metrics", {})
        require_same_images(progress.get("images"), trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = {name: torch.tensor(value) for name, value in self._metrics.items()}
        trainer.callback_metrics.update(known)  # those of the last validation


def is_validation_due(trainer: Trainer) -> bool:
    """Whether a validation runs between this step and the next."""
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]


def set_validation_pending(loops: dict[str, Any]) -> None:
    """Change Lightning's progress to that of a training that stopped as its validation began.

    From the state after a step, Lightning would resume after the validation: schedule and best
    checkpoint would miss that epoch.

    Args:
        loops: state of the fit loop in a checkpoint; changed in place.
    """
    batches = loops["epoch_loop.batch_progress"]
    for part in ("total", "current"):
        batches[part]["completed"] = batches[part]["processed"]
    nothing = {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    loops["epoch_loop.val_loop.batch_progress"] = {
        "total": {**nothing, "ready": 1, "started": 1},
        "current": nothing,
        "is_last_batch": False,
    }
