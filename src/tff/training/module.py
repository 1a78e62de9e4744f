"""The training module: loss, metrics and optimizer of a detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryRecall, BinarySpecificity

from tff.data.datamodule import Data
from tff.detectors.checkpoint import ORIGIN
from tff.detectors.detector import Detector
from tff.statistics.detection import AveragePrecision
from tff.training.from_checkpoint import USED_IMAGES, record_images
from tff.types import Batch

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
MakeScheduler = Callable[..., torch.optim.lr_scheduler.LRScheduler]


class UniversalDetector(LightningModule):
    """Trains a detector with binary cross entropy on its logit (Wang et al., CVPR 2020).

    Args:
        detector: to be trained.
        optimizer: makes the optimizer from the parameters.
        scheduler: makes a schedule of `total_steps` optimizer steps; None: see `schedule.Plateau`.
        compile: use `torch.compile`, which takes minutes at the start.
        origin: options of detector and data in plain containers. They go into each checkpoint, so
            that it can rebuild its detector and name its data.
    """

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
        if compile:  # in place: names of weights stay, and a copy of the detector is not compiled
            self.detector.compile()
        self.train_metrics, self.val_metrics = _metrics("train/"), _metrics("val/")

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,) logits."""
        logits: Tensor = self.detector(image)
        return logits

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        image = batch.image.to(memory_format=torch.channels_last).float() / 255
        return batch._replace(image=image)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # In float32: rounded to bfloat16, the logits of many images are equal.
        with torch.autocast(self.device.type, enabled=False):
            self._step(batch, "val")

    def _step(self, batch: Batch, split: str) -> Tensor:
        logits = self(batch.image)
        loss = F.binary_cross_entropy_with_logits(logits, batch.label.to(logits.dtype))
        metrics = self.train_metrics if split == "train" else self.val_metrics
        metrics.update(logits, batch.label)
        self.log(f"{split}/loss", loss, prog_bar=True, batch_size=len(logits), on_epoch=True,
                 on_step=split == "train", sync_dist=split == "val")  # fmt: skip
        self.log_dict(dict(metrics.items()), on_epoch=True, on_step=False, prog_bar=split == "val",
                      batch_size=len(logits))  # fmt: skip
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.detector.parameters())
        if self.make_scheduler is None:
            return optimizer
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = self.make_scheduler(optimizer, total_steps=total)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[ORIGIN] = self.origin
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, Data):
            if self._images is None:
                pretrained = self.origin.get("detector", {}).get("pretrained")
                self._images = record_images(data, pretrained)
            checkpoint[USED_IMAGES] = self._images


def _metrics(prefix: str) -> MetricCollection:
    """Average precision, and accuracy at 0.5 on all, real and generated images."""
    return MetricCollection(
        {
            "ap": AveragePrecision(),
            "accuracy": BinaryAccuracy(),
            "real_accuracy": BinarySpecificity(),
            "fake_accuracy": BinaryRecall(),
        },
        prefix=prefix,
        compute_groups=False,
    )
