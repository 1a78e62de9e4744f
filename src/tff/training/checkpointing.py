"""Checkpoints for resuming: complete files, also within an epoch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from tff.atomic import write_atomically
from tff.detectors.safe_load import read
from tff.training.resume import fingerprint_images, require_same_images


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside, see that it is on the disk, then rename.

    Lightning writes to the folder of temporary files and moves; between two file systems that is a
    copy, which may be cut short under the final name.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write it beside `path`, then rename.

        Raises:
            OSError: the disk is full or the like; the former checkpoint is as it was.
        """
        # Opened here: the errors of torch's own writer do not say what went wrong.
        with write_atomically(Path(path), lasting=True) as part, part.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Tensors (on the CPU) and plain containers only, whatever is asked for.

        Raises:
            FileNotFoundError, ValueError: as `tff.detectors.safe_load.read`.
        """
        return read(path)


#: Our entry of a checkpoint about the training, beside the origin of the detector.
PROGRESS = "tff_progress"


class Last(Checkpoint):
    """Write `last.ckpt` at the end of each epoch, and every so often within one.

    A checkpoint within an epoch is written after a step of the optimizer; a validation that follows
    that step is run when the training goes on. All metrics are kept, so that a schedule, the best
    checkpoint and the summary know the last validation. Stands after `best` in the list of
    callbacks: what that one knows of the epoch then goes into the file.

    Args:
        dirpath: folder of the checkpoints.
        minutes: of training after which to write again; None: no matter how long an epoch takes.
        steps: of the optimizer after which to write again; None: no matter how many.

    Raises:
        ValueError: not above 0; or training images that differ from those of the checkpoint.
    """

    def __init__(self, dirpath: str, minutes: float | None = 30, steps: int | None = None) -> None:
        for name, value in {"minutes": minutes, "steps": steps}.items():
            if value is not None and value <= 0:
                raise ValueError(f"callbacks.last.{name}={value}: must be above 0, or null")
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
        """Write the checkpoint, on all processes together."""
        self._validation_follows = validation_follows
        trainer.save_checkpoint(self.path, weights_only=False)
        self._validation_follows, self._when = False, time.monotonic()
        self.written += 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The clock starts; the loader goes on where it was, too.

        Lightning forgets that where a schedule has asked for the number of steps.
        """
        self._when = time.monotonic()
        trainer.fit_loop._load_combined_loader_states()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Remember the step, to see whether this batch completes one."""
        self._before = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Write if it is time, and gradients are not being summed up."""
        step = trainer.global_step
        if step != self._before and self._due(trainer, step):
            self.save(trainer, is_validation_due(trainer))

    def _due(self, trainer: Trainer, step: int) -> bool:
        if self.steps and step % self.steps == 0:
            return True
        if self.minutes is None:
            return False
        late = time.monotonic() - self._when >= 60 * self.minutes
        return trainer.strategy.reduce_boolean_decision(late, all=False)  # clocks differ

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write after the validation, if there was one, and after the best checkpoint."""
        self.save(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out."""
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
        """Take it out again."""
        progress = checkpoint.get(PROGRESS, {})
        self._metrics = progress.get("metrics", {})
        require_same_images(progress.get("images"), trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was known of the last validation is known again."""
        known = {name: torch.tensor(value) for name, value in self._metrics.items()}
        trainer.callback_metrics.update(known)


def is_validation_due(trainer: Trainer) -> bool:
    """Whether the validation is run between this step and the next."""
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]


def set_validation_pending(loops: dict[str, Any]) -> None:
    """Make Lightning's progress that of a training which was stopped as its validation began.

    Of the state after a step it believes that the validation has been run, and would go on without:
    no schedule and no best checkpoint would hear of that epoch.
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
