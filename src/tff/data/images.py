"""Folders of images -> rows of a manifest -> tensors."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from tff.types import Batch

#: Folder name -> label. The nearest folder above an image decides, never the alphabet.
LABELS = {name: 0 for name in ("0_real", "real", "REAL", "nature")} | {
    name: 1 for name in ("1_fake", "fake", "FAKE", "ai")
}
# Pixels as stored, as Pillow and the published code see them: no rotation by EXIF.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class Transform(Protocol):
    """An albumentations pipeline: HWC uint8 in, HWC uint8 out, seeded before each call."""

    def __call__(self, *, image: NDArray[np.uint8]) -> Mapping[str, Any]: ...
    def set_random_seed(self, seed: int) -> None: ...


def index(root: Path) -> pd.DataFrame:
    """List the images below a folder.

    Returns:
        Columns `path`, `label` (0 real, 1 generated), `generator` (first folder under the root),
        `height`, `width`; sorted by path.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, an image without a label folder above it, a file that is no image, or
            a generator with one label only; the message names them.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root}: no such folder")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise ValueError(f"image folder {root}: no images (of {', '.join(sorted(SUFFIXES))}) in it")
    table = pd.DataFrame([_row(path, root) for path in paths])
    labels = table.groupby("generator")["label"].unique()
    single = [f"{g} (only label {found[0]})" for g, found in labels.items() if len(found) == 1]
    if single:
        raise ValueError(
            f"image folder {root}: need real and generated images of each generator, but of "
            f"{', '.join(single)} there is one kind; expected GENERATOR/.../0_real and 1_fake"
        )
    return table


def _row(path: Path, root: Path) -> dict[str, object]:
    folders = path.relative_to(root).parts[:-1]
    label = next((LABELS[name] for name in reversed(folders) if name in LABELS), None)
    if label is None:
        raise ValueError(
            f"{path}: no folder above it says real or fake; known: {', '.join(LABELS)}"
        )
    # A tree without a generator level (root/0_real) is a generator by the root's own name.
    generator = root.resolve().name if folders[0] in LABELS else folders[0]
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes): not a readable image") from error
    return {
        "path": str(path),
        "label": label,
        "generator": generator,
        "height": height,
        "width": width,
    }


def decode(path: str) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) RGB uint8.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    data = np.fromfile(path, np.uint8)  # cv2.imread cannot open every file name
    image = cv2.imdecode(data, _FLAGS) if data.size else None
    if image is None:
        raise ValueError(f"{path} ({data.size} bytes): damaged image; repair or remove it")
    return image.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Images(Dataset[Batch]):
    """Images of a manifest, as a data set of (epoch, row) keys.

    A sample is a pure function of (seed, epoch, row), whatever worker makes it and in what order.

    Attributes:
        manifest: as `index` makes it, numbered 0, 1, ...
        crop: side of the centre square that is used, None for whole images.
        transform: augmentation, applied in place of the crop.
    """

    manifest: pd.DataFrame
    crop: int | None = None
    transform: Transform | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """One image as (3, H, W) uint8 with its label and row."""
        epoch, row = key
        path, label = self.manifest.at[row, "path"], self.manifest.at[row, "label"]
        image = decode(str(path))
        if self.transform is not None:
            self.transform.set_random_seed(zlib.crc32(f"{self.seed}/{epoch}/{row}".encode()))
            image = self.transform(image=image)["image"]
        elif self.crop is not None:
            image = _centre(image, self.crop, str(path))
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return Batch(pixels, torch.tensor(int(str(label))), torch.tensor(row))

    @property
    def generators(self) -> list[str]:
        """Names of the generators, sorted."""
        return sorted(self.manifest["generator"].unique())

    def counts(self) -> dict[str, str]:
        """How many images there are of each generator, in words."""
        real = self.manifest["label"].eq(0).groupby(self.manifest["generator"]).agg(["sum", "size"])
        return {
            str(generator): f"{row['sum']} real, {row['size'] - row['sum']} generated"
            for generator, row in real.iterrows()
        }

    def sizes(self) -> NDArray[np.int64]:
        """(N, 2) height and width of each image as it comes out (without augmentation)."""
        size: NDArray[np.int64] = self.manifest[["height", "width"]].to_numpy(np.int64)
        return size if self.crop is None else np.full_like(size, self.crop)

    def limited(self, limit: int | None, seed: int = 0) -> Images:
        """At most so many images of each generator and label, drawn with the seed."""
        if limit is None:
            return self
        groups = self.manifest.sample(frac=1, random_state=seed).groupby(["generator", "label"])
        rows = groups.head(limit).index.sort_values()
        return replace(self, manifest=self.manifest.loc[rows].reset_index(drop=True))


def _centre(image: NDArray[np.uint8], side: int, path: str) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if min(height, width) < side:
        raise ValueError(f"{path}: {height}x{width} pixels, smaller than data.crop={side}")
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]
