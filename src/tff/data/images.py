"""Rows of a manifest -> tensors."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from tff.data.layout import real_for
from tff.data.source import pixels
from tff.data.views import WHOLE, View
from tff.types import Batch

#: Quality at which `match_format` encodes all images; lower than most sets' own.
MATCHED_QUALITY = 75
_NOTHING = pd.DataFrame({"path": [], "problem": []}, dtype="str")


class Transform(Protocol):
    """An albumentations pipeline: HWC uint8 in, HWC uint8 out, seeded before each call."""

    def __call__(self, *, image: NDArray[np.uint8]) -> Mapping[str, Any]: ...
    def set_random_seed(self, seed: int) -> None: ...


@dataclass(frozen=True)
class Images(Dataset[Batch]):
    """Images of a manifest, as a data set of (epoch, row) or (epoch, row, number of a view) keys.

    A sample is a pure function of (seed, epoch, row), whatever worker makes it and in what order.

    Attributes:
        manifest: as `manifest.index` makes it, numbered 0, 1, ...
        view: what of an image is seen.
        transform: augmentation, applied in place of the view's crop.
        match_format: whether every image is compressed alike (JPEG) before anything else.
        real_of: generator -> the `generator` of the real images that belong to it, where several
            share them.
        skipped: `path` and `problem` of files that were left out.
        notes: what a reader of a report should know of the set.
    """

    manifest: pd.DataFrame
    view: View = WHOLE
    transform: Transform | None = None
    seed: int = 0
    match_format: bool = False
    real_of: Mapping[str, str] = field(default_factory=dict)
    skipped: pd.DataFrame = field(default_factory=_NOTHING.copy)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, ...]) -> Batch:
        """One image as (3, H, W) uint8 with its label and row."""
        epoch, row, *number = key
        path, label = self.manifest.at[row, "path"], self.manifest.at[row, "label"]
        image = pixels(str(path))
        if self.match_format:
            image = compressed(image, MATCHED_QUALITY)
        seed = zlib.crc32(f"{self.seed}/{epoch}/{row}".encode())
        view = self.view if self.transform is None else View(resize=self.view.resize)
        image = view.apply(image, seed, number[0] if number else 0, str(path))
        if self.transform is not None:
            self.transform.set_random_seed(seed)
            image = self.transform(image=image)["image"]
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return Batch(tensor, torch.tensor(int(str(label))), torch.tensor(row))

    @property
    def generators(self) -> list[str]:
        """Names of the generators, sorted."""
        return sorted(self.manifest["generator"][self.manifest["label"] == 1].unique())

    def rows_of(self, generator: str) -> NDArray[np.int64]:
        """The rows of a generator's images and of the real ones that belong to it."""
        of_row, label = self.manifest["generator"], self.manifest["label"]
        real = real_for(generator, self.real_of)
        mine = ((of_row == generator) & (label == 1)) | ((of_row == real) & (label == 0))
        return np.flatnonzero(mine)

    def counts(self) -> dict[str, str]:
        """How many images there are of each generator, in words."""
        found = {}
        for generator in self.generators:
            label = self.manifest["label"].to_numpy()[self.rows_of(generator)]
            found[generator] = f"{(label == 0).sum()} real, {(label == 1).sum()} generated"
        return found

    def sizes(self) -> NDArray[np.int64]:
        """(N, 2) height and width of each image as it comes out (without augmentation)."""
        return self.view.sizes(self.manifest[["height", "width"]].to_numpy(np.int64))

    def chosen(self, generators: list[str] | None, classes: list[str] | None) -> Images:
        """Those of some generators and classes only; None: of all.

        Raises:
            ValueError: there is no such generator or class.
        """
        keep = np.ones(len(self), bool)
        for option, names, known in (
            ("generators", generators, self.generators),
            ("classes", classes, sorted(self.manifest["class"].unique())),
        ):
            if unknown := sorted(set(names or ()) - set(known)):
                raise ValueError(f"data.{option}={unknown}: unknown; there are {', '.join(known)}")
        if generators is not None:
            rows = [self.rows_of(generator) for generator in generators]
            keep &= np.isin(np.arange(len(self)), np.concatenate([np.empty(0, int), *rows]))
        if classes is not None:
            keep &= self.manifest["class"].isin(classes).to_numpy()
        return replace(self, manifest=self.manifest[keep].reset_index(drop=True))

    def limited(self, limit: int | None, seed: int = 0) -> Images:
        """At most so many images of each generator and label, drawn with the seed.

        Classes are taken from evenly: each gives its next image in turn.
        """
        if limit is None:
            return self
        table = self.manifest.sample(frac=1, random_state=seed)
        if "class" in table:
            turn = table.groupby(["generator", "label", "class"]).cumcount()
            table = table.assign(_turn=turn).sort_values("_turn", kind="stable")
        rows = table.groupby(["generator", "label"]).head(limit).index.sort_values()
        return replace(self, manifest=self.manifest.loc[rows].reset_index(drop=True))


def compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """(H, W, 3) RGB after JPEG compression, 4:2:0."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _done, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB), np.uint8)
