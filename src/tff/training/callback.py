"""Analysis of each checkpoint while training goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from tff.analyses.base import Analysis, run
from tff.analyses.observed import TooFewImagesError
from tff.analyses.subject import Subject
from tff.report import loggers
from tff.report.page import write
from tff.report.versions import versions

log = logging.getLogger(__name__)


class AnalyzeCheckpoints(Checkpoint):
    """Run analyses on the detector whenever a checkpoint of it has been saved.

    Stands after `ModelCheckpoint` in the list of callbacks. Scalars go to the logger; tables,
    figures and `summary.json` to `DIR/step000300/` beside the checkpoint. The numbers are those of
    `analyze.py` on that checkpoint with the same options.

    Args:
        analyses: name -> analysis.
        subject: `Subject.of` with its options set.
        images: at most so many images of each generator and label; None: all.
        dirpath: folder of the checkpoints.
    """

    def __init__(
        self,
        analyses: Mapping[str, Analysis],
        subject: Callable[..., Subject],
        images: int | None,
        dirpath: str,
    ) -> None:
        self.analyses, self.subject = analyses, subject
        self.images, self.dirpath = images, Path(dirpath)
        self._saved = self._analysed = -1

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember that there is something to analyse; may come twice for one step."""
        self._saved = trainer.global_step

    # Lightning saves at one of these moments; the first one after a save is taken.
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """After a step."""
        self._analyse(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After a validation."""
        self._analyse(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After an epoch."""
        self._analyse(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After training."""
        self._analyse(trainer, pl_module)

    def _analyse(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = self._saved
        if step == self._analysed or trainer.sanity_checking:
            return
        self._analysed = step
        images = trainer.datamodule.splits().limited(self.images)  # type: ignore[attr-defined]
        # Validation and test run in inference mode, in which no tensor can be changed later.
        with torch.inference_mode(False), torch.no_grad():
            subject = self.subject(
                pl_module.detector, images, device=str(pl_module.device), weights=f"step {step}"
            )
            try:
                results = run(self.analyses, subject)
            except TooFewImagesError as error:
                log.warning("checkpoint of step %d is not analysed: %s", step, error)
                return
        for logger in trainer.loggers:
            loggers.log(results, logger, step)
        if trainer.is_global_zero:
            context = {"step": step, "protocol": subject.protocol, "versions": versions()}
            write(results, self.dirpath / f"step{step:06d}", context)
