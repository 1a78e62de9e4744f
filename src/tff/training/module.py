"""The training module: loss, metrics and optimizer of a detector."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MetricCollection

from tff.data.datamodule import Data
from tff.detectors.checkpoint import ORIGIN
from tff.detectors.detector import Detector
from tff.detectors.input_sizes import explain_size
from tff.options import checked
from tff.statistics.detection import Accuracy, AveragePrecision
from tff.training.features import ComputeFeatures
from tff.training.from_checkpoint import USED_IMAGES, record_images
from tff.training.restore import fit_callbacks, fit_progress
from tff.types import Batch

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
MakeScheduler = Callable[..., LRScheduler]
T = TypeVar("T")

log = logging.getLogger(__name__)
_NAMES = ("ap", "accuracy", "real_accuracy", "fake_accuracy")
#: Logged metrics that are the better the larger they are; `val/loss` and `train/loss` are not.
METRICS = tuple(f"{split}/{name}" for split in ("val", "train") for name in _NAMES)


class DivergedError(ValueError):
    """The loss or the weights of a training are no longer finite numbers."""


class UniversalDetector(LightningModule):
    """Trains a detector with binary cross entropy on its logit (Wang et al., CVPR 2020).

    The training stops, on all processes, at the first loss that is not a finite number, and before
    such weights are written to a checkpoint.

    Args:
        detector: to be trained.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes a schedule that is stepped once per batch; it gets the number of optimizer
            steps if it takes `total_steps`. None: see `schedule.Plateau`.
        compile: use `torch.compile`, which takes minutes at the start.
        origin: options of detector and data in plain containers. They go into each checkpoint, so
            that it can rebuild its detector and name its data.
    """

    @checked("module")
    def __init__(
        self,
        detector: Detector,
        optimizer: MakeOptimizer,
        scheduler: MakeScheduler | None = None,
        compile: bool = False,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.detector = detector.to(memory_format=torch.channels_last)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.origin = dict(origin or {})
        self._images: dict[str, Tensor] | None = None
        self._restored: dict[str, Any] | None = None
        if compile:  # in place: names of weights stay, and a copy of the detector is not compiled
            self.detector.compile()
        self.train_metrics, self.val_metrics = _metrics("train/"), _metrics("val/")
        self._warned = False

    def setup(self, stage: str) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        frozen = stage == "fit" and self.detector.trained == "head"
        if frozen and isinstance(data, Data) and data.views:
            folder = data.cache_folder or Path(self.trainer.default_root_dir)
            data.stand_in = ComputeFeatures(self.detector, folder / "features", data.workers)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1], or (B, D) features of a frozen tower -> (B,) logits."""
        logits: Tensor = self.detector.judge(image) if image.ndim == 2 else self.detector(image)
        return logits

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        image = batch.image
        if image.ndim == 4:
            image = image.to(memory_format=torch.channels_last).float() / 255
        # The weights have another type with trainer.precision=bf16-true, 16-true and 64-true.
        return batch._replace(image=image.to(next(self.detector.parameters()).dtype))

    def on_train_start(self) -> None:
        if not _is_finite(self.detector.state_dict().values()):
            raise DivergedError(
                "the weights that the training starts from are not all finite numbers; start from "
                "others (detector.pretrained=FILE, ckpt=FILE), or anew without resume="
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        try:
            loss = self._step(batch, "train")
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"data.batch_size={len(batch.label)}: batch normalisation needs several values of "
                "each channel, and the smallest feature maps of these images have a single pixel; "
                "use larger batches, or larger crops (data.size)"
            ) from None
        self._stop_unless(_is_finite([loss]), f"the loss of step {self.trainer.global_step + 1}")
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # In float32: rounded to bfloat16, the logits of many images are equal.
        with torch.autocast(self.device.type, enabled=False):
            self._step(batch, "val")

    def _step(self, batch: Batch, split: str) -> Tensor:
        with explain_size(self.detector, batch.image):
            logits = self.forward(batch.image)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        loss = F.binary_cross_entropy_with_logits(logits, batch.label.to(logits.dtype))
        metrics = self.train_metrics if split == "train" else self.val_metrics
        metrics.update(logits, batch.label)
        self.log(f"{split}/loss", loss, prog_bar=True, batch_size=len(logits), on_epoch=True,
                 on_step=split == "train", sync_dist=split == "val")  # fmt: skip
        self.log_dict(dict(metrics.items()), on_epoch=True, on_step=False, prog_bar=split == "val",
                      batch_size=len(logits))  # fmt: skip
        return loss

    def on_validation_epoch_end(self) -> None:
        metrics = self.trainer.callback_metrics
        if self.trainer.sanity_checking or "val/loss" not in metrics:
            return
        finite = _is_finite([metrics["val/loss"]])
        self._stop_unless(finite, f"the validation loss after step {self.trainer.global_step}")
        kinds = {"generated": "val/real_accuracy", "real": "val/fake_accuracy"}
        only = [kind for kind, other in kinds.items() if torch.isnan(metrics[other])]
        if only and not self._warned and self.trainer.is_global_zero:
            self._warned = True
            log.warning(
                "the validation saw %s images only, so val/ap is unknown; it needs both kinds "
                "(trainer.limit_val_batches, data.generators, data.classes)", only[0],
            )  # fmt: skip

    def _stop_unless(self, finite: bool, what: str) -> None:
        """Raise on all processes if a number of one of them is not finite; all must call it."""
        if self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            return
        precision = str(self.trainer.precision)
        half = not precision.endswith(("32-true", "64-true"))
        wider = f", or compute with more bits than trainer.precision={precision}" if half else ""
        raise DivergedError(
            f"the training diverged: {what} (epoch {self.current_epoch}) is not a finite number; "
            "lower the learning rate (module.optimizer.lr), clip gradients "
            f"(+trainer.gradient_clip_val=1){wider}. Checkpoints of earlier steps are unchanged"
        )

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.detector.parameters() if p.requires_grad]
        optimizer = _make("module.optimizer", self.make_optimizer, trained)
        self._require_fitting(optimizer)
        if self.make_scheduler is None:
            return optimizer
        steps = {}
        if _takes(self.make_scheduler, "total_steps"):
            total = self.trainer.estimated_stepping_batches
            if math.isinf(total):
                raise ValueError(
                    "module.scheduler: needs the number of steps in advance; set "
                    "trainer.max_epochs or trainer.max_steps"
                )
            steps["total_steps"] = int(total)
        scheduler = _make("module.scheduler", self.make_scheduler, optimizer, **steps)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError(
                "module.scheduler: ReduceLROnPlateau follows a metric, and schedules are stepped "
                "once per batch; use the callback that does the same (callbacks.schedule, see "
                "tff.training.schedule.Plateau)"
            )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def _require_fitting(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an optimizer that would fail in the first step."""
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError(
                "module.optimizer: LBFGS works on the whole set at once, and not on weights in "
                "the layout that convolutions are fastest in; choose another, such as "
                "torch.optim.SGD"
            )
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        if scaled and fused and self.trainer.gradient_clip_val:
            raise ValueError(
                f"trainer.gradient_clip_val={self.trainer.gradient_clip_val}: a fused optimizer "
                "cannot clip gradients with trainer.precision=16-mixed; add "
                "module.optimizer.fused=false, or use trainer.precision=bf16-mixed"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        finite = _is_finite(checkpoint["state_dict"].values())
        self._stop_unless(finite, f"a weight after step {self.trainer.global_step}")
        checkpoint[ORIGIN] = self.origin
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, Data):
            if self._images is None:
                pretrained = self.origin.get("detector", {}).get("pretrained")
                self._images = record_images(data, pretrained)
            checkpoint[USED_IMAGES] = self._images

    # Lightning restores callbacks after the first of these hooks, all else after the second one.
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        fit_callbacks(checkpoint, self.trainer)
        self._restored = checkpoint

    def on_fit_start(self) -> None:
        if self._restored:
            fit_progress(self._restored, self.trainer)
            self._restored = None

    def on_fit_end(self) -> None:
        if self.trainer.global_step == 0:
            limits = ", ".join(
                f"trainer.{name}={getattr(self.trainer, name)}"
                for name in ("max_epochs", "max_steps", "limit_train_batches")
            )
            raise ValueError(
                f"nothing was trained: no step was made with {limits}; allow at least one step"
            )


def _is_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of these tensors are finite."""
    found = [torch.isfinite(t).all() for t in tensors if t.is_floating_point() and t.numel()]
    return not found or bool(torch.stack(found).all())


def _make(option: str, make: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Call the class that an option names; its errors name the option."""
    try:
        return make(*arguments, **named)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{option}: {error} ({option}.NAME=VALUE sets an argument, ~{option}.NAME removes one)"
        ) from error


def _takes(make: Callable[..., Any], name: str) -> bool:
    """Whether a class or function takes an argument that was not given by an option."""
    if isinstance(make, partial) and name in make.keywords:
        return False
    parameters = inspect.signature(make).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _metrics(prefix: str) -> MetricCollection:
    """Average precision, and accuracy at 0.5 on all, real and generated images."""
    made = (AveragePrecision(needs_real=True), Accuracy(), Accuracy(0), Accuracy(1))
    named: dict[str, Any] = dict(zip(_NAMES, made, strict=True))
    return MetricCollection(named, prefix=prefix, compute_groups=False)
