"""Image folders for training, validation and test, and for the analyses that follow."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from tff.data.autogan import cached
from tff.data.images import Images, Transform, index
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


class Folder(Data):
    """Any tree of `0_real`/`1_fake` folders (or real/fake, nature/ai, REAL/FAKE).

    With `train`, `val` and `test` folders under the root, these are the three sets. Otherwise the
    tree is divided by a hash of each file's name, so that an image and its counterpart of the same
    name fall on the same side; an analysis then uses all of it.

    Args:
        root: the folder.
        fractions: shares of the training and the validation set in an undivided tree.
    """

    def __init__(
        self,
        root: str,
        fractions: tuple[float, float] = (0.6, 0.2),
        augmentation: dict[str, Transform] | None = None,
        size: int = 224,
        crop: int | None = None,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(augmentation, size, crop, batch_size, workers, seed)
        self.root, self.fractions = Path(root).expanduser(), fractions

    @cached_property
    def divided(self) -> bool:
        """Whether the root holds a folder for each set."""
        return any((self.root / split).is_dir() for split in ("train", "val", "test"))

    @cached_property
    def _tree(self) -> pd.DataFrame:
        table = index(self.root)
        hashes = table["path"].map(lambda p: zlib.crc32(f"{self.seed}/{Path(p).stem}".encode()))
        train, val = self.fractions
        bins = [-1.0, train, train + val, 1.0]
        return table.assign(split=pd.cut(hashes / 2**32, bins, labels=["train", "val", "test"]))

    def manifest(self, split: str) -> pd.DataFrame:
        """The rows of a set."""
        if self.divided:
            return index(self.root / split)
        rows = self._tree[self._tree["split"] == split].drop(columns="split")
        if rows.groupby("label").size().size < 2:
            raise ValueError(
                f"image folder {self.root}: too few images for a {split} set of both kinds"
            )
        return rows.reset_index(drop=True)

    def splits(self) -> Splits:
        """The sets of a divided tree; in an undivided one, all images stand for both."""
        if self.divided:
            return super().splits()
        images = Images(self._tree.drop(columns="split"), crop=self.crop, seed=self.seed)
        return Splits(images, images)


class AutoGAN(Data):
    """Photographs and their counterfeits by small CNN generators, made on first use and kept.

    Zhang, Karaman and Chang, "Detecting and simulating artifacts in GAN fake images", WIFS 2019.

    Args:
        cache: folder in which the images are kept, one folder for each choice of settings.
        photos: folder of the user's own photographs; None: those that come with the dependencies.
        size: side of the square images, in pixels, all of which is used.
        steps: training steps of each generator.
    """

    def __init__(
        self,
        cache: str,
        photos: str | None = None,
        steps: int = 200,
        augmentation: dict[str, Transform] | None = None,
        size: int = 64,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(augmentation, size, None, batch_size, workers, seed)
        self.cache, self.photos = Path(cache), Path(photos).expanduser() if photos else None
        self.steps = steps

    def prepare_data(self) -> None:
        """Train the generators and write the images, unless that was done before."""
        self.folder()

    def folder(self) -> Path:
        """Where the images are."""
        return cached(
            self.cache, photos=self.photos, seed=self.seed, size=self.size, steps=self.steps
        )

    def manifest(self, split: str) -> pd.DataFrame:
        """The rows of a set."""
        return index(self.folder() / split)
