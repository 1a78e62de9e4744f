"""Lightning data modules: training, validation and test images of a set."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from tff.data.dataset import CROPS, Images, Used, View
from tff.data.groups import GROUP, count_shared, count_units, find_groups, name_unit
from tff.data.layout import Places
from tff.data.loaders import EvaluationBatches, Keys, TrainingBatches, loader
from tff.data.manifest import ANY_LAYOUT, Manifest, list_images
from tff.data.tree import Tree
from tff.distributed import get_world_size
from tff.options import NAMES, PATH, SEED, checked, to_names, whole
from tff.types import Batch, Ints

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
#: Split -> what a training uses it for, as it follows "are among those" in a sentence.
PURPOSES = {
    "train": "that the detector was trained on",
    "val": "that chose the checkpoint in training (validation images)",
}


class Splits(NamedTuple):
    """The images of an analysis.

    Attributes:
        discovery: validation images of the seen generator, on which channels are ranked; none of
            them was trained on.
        test: images of every generator, on which the ranked channels are tested; none of them was
            trained on, chose the checkpoint or ranks channels.
        train: training images, for analyses of the data itself.
    """

    discovery: Images
    test: Images
    train: Images | None = None

    def subsample(self, limit: int | None, seed: int = 0) -> Splits:
        """At most `limit` images of each generator and label in each split; see `Images`."""
        return Splits(
            self.discovery.subsample(limit, seed),
            self.test.subsample(limit, seed),
            self.train and self.train.subsample(limit, seed),
        )

    @property
    def by_name(self) -> dict[str, Images]:
        """Name in reports -> images; images that serve as both discovery and test appear once."""
        sets = {} if self.train is None else {"train": self.train}
        if not self.discovery.manifest.equals(self.test.manifest):
            sets["discovery"] = self.discovery
        return sets | {"test": self.test}


class Data(LightningDataModule, ABC):
    """Loaders over three splits; a subclass says where the images are.

    Args:
        augmentation: pipelines (`dataset.Transform`) `train` and `validation`, other entries are
            ignored; None leaves images as they are.
        size: side in pixels of the training crops that the augmentation makes.
        crop: crop outside training; see `dataset.View`.
        resize: length of the shorter side before anything else, in training too; None keeps sizes.
        views: number of different augmented views of each training image, which epochs take in
            turn; None: a new one in each epoch. A training of the head alone
            (`detector.train=head`) then computes the features of each view once.
        batch_size: images in a batch on each process; only images of one size share a batch.
        workers: loader processes.
        seed: of order, augmentation and subsampling.
        generators: use only these; None uses all.
        classes: use only these; None uses all.
        limit: most images of each generator and label; None uses all.
        match_format: compress all images alike before anything else.
        on_corrupt: `error` or `skip` for files that cannot be used.
        pixels: decode each file once when it is first listed, to find damage in its middle.
        group: how the source of an image is known, see `groups.find_groups`; images of one source
            are resampled together, and are never divided. None: it is not known.
        cache: folder for lists of files; None caches nothing.
    """

    @checked("data")
    def __init__(
        self,
        *,
        augmentation: Mapping[str, Any] | None = None,
        size: Annotated[int, whole(1)] = 224,
        crop: Annotated[str, CROPS] | None = "none",
        resize: Annotated[int, whole(1)] | None = None,
        views: Annotated[int, whole(1)] | None = None,
        batch_size: Annotated[int, whole(1)] = 64,
        workers: Annotated[int, whole(0)] = 0,
        seed: Annotated[int, SEED] = 0,
        generators: Annotated[Sequence[str] | str, NAMES] | None = None,
        classes: Annotated[Sequence[str] | str, NAMES] | None = None,
        limit: Annotated[int, whole(1)] | None = None,
        match_format: bool = False,
        on_corrupt: Literal["error", "skip"] = "error",
        pixels: bool = False,
        group: Annotated[str, GROUP] | None = None,
        cache: Annotated[str, PATH] | None = None,
    ) -> None:
        super().__init__()
        self.augmentation, self.size = augmentation or {}, size
        self.view = View(crop or "none", resize)
        self.views = views
        #: Makes of a split (name, images and number of views) what a training gets in place of its
        #: pixels, under the same keys; None: it gets these.
        self.stand_in: Callable[[str, Images, int], Dataset[Batch]] | None = None
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.generators = to_names("data.generators", generators)
        self.classes, self.limit = to_names("data.classes", classes), limit
        self.match_format, self.on_corrupt, self.pixels = match_format, on_corrupt, pixels
        self.group = group
        #: Folder of the cache.
        self.cache_folder = Path(cache).expanduser() if cache else None
        #: Folder for lists of files.
        self.files = self.cache_folder / "files" if self.cache_folder else None
        self._manifests: dict[str, Manifest] = {}
        #: Remarks on the whole tree, such as files that are not read.
        self.remarks: list[str] = []

    @abstractmethod
    def list_images(self, split: str) -> Manifest:
        """All images of `train`, `val` or `test`, and the files that cannot be used."""

    def real_of(self, split: str) -> Mapping[str, str]:
        """Generator -> name of the real images that it is compared with, if not its own."""
        return {}

    def notes(self, split: str) -> list[str]:
        """Remarks on a split for the reader of a report."""
        return []

    def available_splits(self) -> list[str]:
        """Those of train, val and test that exist."""
        return list(SPLITS)

    def manifest(self, split: str) -> pd.DataFrame:
        """Rows of a split, numbered from 0."""
        return self.images(split).manifest

    @property
    def undivided(self) -> bool:
        """Whether nothing but a hash of the names divides the images into splits."""
        return False

    def images(self, split: str, *used: Used) -> Images:
        """Images of `train`, `val` or `test`, without augmentation.

        Args:
            split: or `all`, where the set is undivided.
            used: images that are left out; see `Images.leave_out`.
        """
        if split not in self._manifests:
            self._manifests[split] = self.list_images(split)
            for note in self.notes(split):
                log.warning("%s: %s", split, note)
        table, skipped = self._manifests[split]
        notes = [*self.remarks, *self.notes(split)]
        if "group" in table and (alone := int((table["group"] == "").sum())):
            notes.append(f"{alone:,} of {len(table):,} images belong to no {self.unit}.")
        images = Images(
            table, self.view, seed=self.seed, match_format=self.match_format,
            real_of=self.real_of(split), skipped=skipped, notes=tuple(notes), unit=self.unit,
        )  # fmt: skip
        images = images.select(self.generators, self.classes)
        for one in used:
            images = images.leave_out(one)
        return images.subsample(self.limit, self.seed)

    @property
    def unit(self) -> str:
        """What a group of images is, in a word."""
        return "group" if self.group is None else name_unit(self.group)

    def note_shared_groups(self, images: Images) -> Images:
        """Images of this set, with a note on those of a group that is in training too."""
        if "group" not in images.manifest or "train" not in self.available_splits():
            return images
        try:
            trained = self.manifest("train")["group"]
        except (ValueError, OSError):  # what cannot be read, cannot have been trained on
            return images
        n_images, n_groups = count_shared(images.manifest["group"], trained)
        if not n_images:
            return images
        shared = count_units(n_groups, images.unit)
        note = (
            f"{n_images:,} of {len(images):,} images belong to {shared} of which other images are "
            f"in training: how well the detector does on a new {images.unit} is not seen from them."
        )
        log.warning("%s", note)
        return replace(images, notes=(*images.notes, note))

    def used_in_training(self) -> dict[str, Ints]:
        """Digests of the images that a detector sees in training, by split."""
        splits = [split for split in PURPOSES if split in self.available_splits()]
        return {split: np.unique(self.images(split).digests) for split in splits}

    def discovery(self) -> Images:
        """Images on which the channels of a detector trained on this set are ranked."""
        return self.note_shared_groups(self.images("val", *self._used("train")))

    def test(self) -> Images:
        """Images on which a detector trained on this set is tested."""
        return self.note_shared_groups(self.images("test", *self._used("train", "val")))

    def _used(self, *splits: str) -> list[Used]:
        try:
            digests = self.used_in_training()
        except (ValueError, OSError):  # what cannot be read, cannot have been trained on
            return []
        return [Used(digests[split], PURPOSES[split]) for split in splits if split in digests]

    def splits(self) -> Splits:
        """Images of an analysis of a detector that was trained on this set."""
        return Splits(self.discovery(), self.test())

    def all_splits(self) -> Splits:
        """Images of an analysis of the data; an existing split stands in for a missing one."""
        sets = {split: self.images(split) for split in self.available_splits()}
        last = list(sets.values())[-1]
        return Splits(sets.get("val", last), sets.get("test", last), sets.get("train"))

    def train_dataloader(self) -> DataLoader[Batch]:
        images = replace(self.images("train"), transform=self.augmentation.get("train"))
        self._require_size(images)
        if len(kinds := images.manifest["label"].unique()) == 1:
            raise ValueError(
                f"all {len(images)} training images are {'generated' if kinds[0] else 'real'}; "
                "a detector is trained on both kinds (data.root, data.generators, data.classes)"
            )
        # Lightning asks for the same batches in each epoch there.
        repeat = bool(self.trainer and self.trainer.overfit_batches)  # type: ignore[attr-defined]
        batches = TrainingBatches(len(images), self.batch_size, self.seed, repeat, self.views)
        return self._load("train", images, batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        images = replace(self.images("val"), transform=self.augmentation.get("validation"))
        self._require_size(images)
        # Lightning takes the first ones (limit_val_batches, overfit_batches, fast_dev_run).
        limit = self.trainer.limit_val_batches if self.trainer else 1.0
        all_of_them = isinstance(limit, float) and limit == 1.0  # 1 is a single batch
        batches = EvaluationBatches(images, self.batch_size, mixed=not all_of_them)
        # A process without a batch would leave the others waiting.
        if len(batches.batches) < get_world_size():
            raise ValueError(
                f"{len(images)} validation images make {len(batches.batches)} batches for "
                f"{get_world_size()} processes; lower data.batch_size, or use fewer processes"
            )
        return self._load("val", images, batches)

    def _load(self, split: str, images: Images, batches: Sampler[Keys]) -> DataLoader[Batch]:
        if self.stand_in is None:
            return loader(images, batches, self.workers)
        views = self.views or 1 if split == "train" else 1
        return loader(self.stand_in(split, images, views), batches, 0)

    def _require_size(self, images: Images) -> None:
        """Fail now, not in the middle of an epoch, if the smallest image is too small."""
        sizes = View(resize=self.view.resize).sizes(
            images.manifest[["height", "width"]].to_numpy(np.int64)
        )
        sides = sizes.min(axis=1, initial=self.size)
        small = np.flatnonzero(sides < self.size)
        if not len(small):
            return
        smallest = int(sides.argmin())
        height, width = sizes[smallest]
        name = str(images.manifest["path"].iloc[smallest])
        try:
            if images.transform is None:
                raise ValueError
            images.augment(np.zeros((height, width, 3), np.uint8), 0, name)
        except ValueError as error:
            raise ValueError(
                f"{name}: {height}x{width} pixels; {len(small)} of {len(images)} images are "
                f"smaller than data.size={self.size}, the side of training crops. Enlarge them "
                f"with data.resize={self.size} (in training only: aug.resize={self.size}), or "
                "lower data.size"
            ) from error

    def _list_folder(
        self, root: Path | Tree, layout: Places = ANY_LAYOUT, split: str = ""
    ) -> Manifest:
        """List the images below a folder with the options of this set."""
        table, skipped = list_images(
            root, layout, split=split, cache=self.files, pixels=self.pixels,
            on_corrupt=self.on_corrupt,
        )  # fmt: skip
        if self.group is not None:
            folder = root.root if isinstance(root, Tree) else root.expanduser()
            table = table.assign(group=find_groups(self.group, folder, table))
        return Manifest(table, skipped)
