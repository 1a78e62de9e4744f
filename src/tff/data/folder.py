"""The user's own images, in any tree of folders that say real or fake."""

from __future__ import annotations

import zlib
from functools import cached_property
from pathlib import Path

import pandas as pd

from tff.data.datamodule import Data, Splits
from tff.data.images import Images, Transform, index


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
        train, val = fractions
        if min(train, val) <= 0 or train + val >= 1:
            raise ValueError(
                f"data.fractions={list(fractions)}: shares of training and validation must be "
                "positive and leave some images for the test"
            )

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
