"""Image folders for training, validation and test, and for the analyses that follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from tff.data.images import Images, Transform
from tff.data.shard import EvaluationBatches, TrainingBatches, loader
from tff.types import Batch


class Splits(NamedTuple):
    """The images of an analysis.

    Attributes:
        discovery: validation images of the seen generator; channels are ranked on these.
        test: images on which the ranked channels are put to the test, of every generator.
    """

    discovery: Images
    test: Images

    def limited(self, limit: int | None, seed: int = 0) -> Splits:
        """At most so many images of each generator and label in both sets."""
        return Splits(*(images.limited(limit, seed) for images in self))


class Data(LightningDataModule, ABC):
    """Loaders over three sets of images; a subclass says where these are.

    Args:
        augmentation: pipelines `train` and `validation`; None: images as they are.
        size: side in pixels of the training crops that the augmentation makes.
        crop: side of the centre square taken of images outside training; None: whole images.
        batch_size: images in a batch and process.
        workers: loader processes.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        augmentation: dict[str, Transform] | None,
        size: int,
        crop: int | None,
        batch_size: int,
        workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.augmentation, self.size = augmentation or {}, size
        self.crop, self.batch_size, self.workers, self.seed = crop, batch_size, workers, seed

    @abstractmethod
    def manifest(self, split: str) -> pd.DataFrame:
        """The rows of `train`, `val` or `test`, numbered from 0."""

    def images(self, split: str) -> Images:
        """The images of `train`, `val` or `test`, without augmentation."""
        return Images(self.manifest(split), crop=self.crop, seed=self.seed)

    def splits(self) -> Splits:
        """The images of an analysis."""
        return Splits(discovery=self.images("val"), test=self.images("test"))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented, shuffled."""
        images = replace(self.images("train"), transform=self.augmentation.get("train"))
        self._require_size(images)
        batches = TrainingBatches(len(images), self.batch_size, self.seed)
        return loader(images, batches, self.workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Each image once, with the augmentation of validation."""
        images = replace(self.images("val"), transform=self.augmentation.get("validation"))
        self._require_size(images)
        return loader(images, EvaluationBatches(images, self.batch_size), self.workers)

    def _require_size(self, images: Images) -> None:
        small = images.manifest[images.manifest[["height", "width"]].min(axis=1) < self.size]
        if len(small):
            raise ValueError(
                f"{len(small)} images are smaller than data.size={self.size}, the side of training "
                f"crops; the first is {small['path'].iloc[0]}. Lower data.size"
            )
