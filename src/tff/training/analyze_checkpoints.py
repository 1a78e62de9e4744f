"""Analyses of each checkpoint during training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from tff.analyses.engine.analysis import Analysis, report_unanswered, run
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import TooFewImagesError
from tff.distributed import guard_collectives
from tff.options import PATH, checked, whole
from tff.report import loggers
from tff.report.page import collect_versions, write
from tff.training.signals import stop_if_signaled
from tff.types import Result

log = logging.getLogger(__name__)


class AnalyzeCheckpoints(Checkpoint):
    """Runs analyses on the detector whenever a checkpoint of it is saved.

    It must follow `ModelCheckpoint` in the list of callbacks. Scalars go to the logger, with the
    cost (`analysis/seconds`, and `analysis/share` of the time since training began); tables,
    figures and `summary.json` go to `DIR/step000300/` beside the checkpoint. The numbers are those
    of `analyze.py` on that checkpoint with the same options. The training is not affected.

    Args:
        analyses: name -> analysis.
        subject: `Subject.of` with its options set.
        images: limit for each generator and label; None: all images.
        dirpath: folder of the checkpoints.
        every_n: analyze every n-th saved step, and the last one.
        on_error: `log`: an analysis that fails is reported in log and page, and training continues;
            `raise`: it ends the training. Too few images are no error: early checkpoints detect
            nothing.

    Raises:
        ValueError: an option has an impossible value, or a callback saves weights only.
    """

    @checked("callbacks.analyze")
    def __init__(
        self,
        analyses: Mapping[str, Analysis],
        subject: Callable[..., Subject],
        images: Annotated[int, whole(1)] | None,
        dirpath: Annotated[str | Path, PATH],
        every_n: Annotated[int, whole(1)] = 1,
        on_error: Literal["log", "raise"] = "log",
    ) -> None:
        self.analyses, self.subject = analyses, subject
        self.images, self.dirpath = images, Path(dirpath)
        self.every_n, self.on_error = every_n, on_error
        self._saves = 0
        self._saved = self._analyzed = -1
        self._began = time.monotonic()
        self._spent = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.save_weights_only:
                raise ValueError(
                    f"{callback.filename or 'a checkpoint'} has save_weights_only=true: Lightning "
                    "notifies no callback of it, so it would not be analyzed; pass "
                    "callbacks.best.save_weights_only=false, or callbacks.analyze=null"
                )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began, self._spent = time.monotonic(), 0.0

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._saves += trainer.global_step != self._saved  # may be called twice for one step
        self._saved = trainer.global_step
        # `state_dict` was called before this save was counted.
        checkpoint.setdefault("callbacks", {})[self.state_key] = self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        return {"saves": self._saves, "step": self._saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saves, self._saved = state_dict["saves"], state_dict["step"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The analysis of the checkpoint from which the training resumes may be missing. One of
        # another folder may have been analyzed there.
        here = self.dirpath.resolve() == Path(trainer.ckpt_path or "/").resolve().parent
        missing = here and not (self._folder(self._saved) / "summary.json").is_file()
        if trainer.strategy.broadcast(missing):
            self._analyze_if_due(trainer, pl_module)
        else:
            self._analyzed = self._saved

    # Lightning saves before one of these hooks; the first one after a save analyzes.
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self._analyze_if_due(trainer, pl_module)

    on_validation_end = on_train_epoch_end = on_train_batch_end

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._analyze_if_due(trainer, pl_module, last=True)

    def _analyze_if_due(
        self, trainer: Trainer, pl_module: LightningModule, last: bool = False
    ) -> None:
        step = self._saved
        due = last or self._saves % self.every_n == 0
        if step == self._analyzed or trainer.sanity_checking or not due:
            return
        self._analyzed = step
        began = time.monotonic()
        gpus = [pl_module.device] if pl_module.device.type == "cuda" else []
        # Validation runs in inference mode, whose tensors cannot be used with gradients later.
        with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(gpus):
            self._analyze(trainer, pl_module, step, began)

    def _analyze(
        self, trainer: Trainer, pl_module: LightningModule, step: int, began: float
    ) -> None:
        protocol: dict[str, object] = {}
        try:
            with guard_collectives():
                images = trainer.datamodule.splits().subsample(self.images)  # type: ignore[attr-defined]
                device, weights = str(pl_module.device), f"step {step}"
                subject = self.subject(pl_module.detector, images, device=device, weights=weights)
        except Exception as error:
            results = {"analysis": self._failed(f"checkpoint of step {step}", error)}
        else:
            results = run(self.analyses, subject, self._failed, partial(stop_if_signaled, trainer))
            protocol = subject.protocol
        cost = self._cost(began)
        try:
            with guard_collectives():
                if trainer.is_global_zero:
                    context = {"step": step, "protocol": protocol, "versions": collect_versions()}
                    write(results, self._folder(step), {**context, **cost})
                for logger in trainer.loggers:
                    loggers.log_results(results, logger, step)
                    logger.log_metrics(cost, step)
        except Exception as error:
            self._failed(f"report of step {step}", error)

    def _folder(self, step: int) -> Path:
        return self.dirpath / f"step{step:06d}"

    def _cost(self, began: float) -> dict[str, float]:
        now = time.monotonic()
        self._spent += now - began
        share = self._spent / max(now - self._began, self._spent, 1e-9)
        return {"analysis/seconds": now - began, "analysis/share": share}

    def _failed(self, name: str, error: Exception) -> Result:
        """Log an error, and return a result that reports it."""
        text = f"{name}: {error}"
        if isinstance(error, TooFewImagesError):
            log.warning("skipped: %s", text)
            return report_unanswered(name, error)
        if self.on_error == "raise":
            raise error
        log.error("analysis failed, training continues: %s", text, exc_info=error)
        return Result(f"{name} FAILED", alarms=[f"{name} failed ({type(error).__name__}): {error}"])
