"""A manifest row becomes pixels: reading, decoding, cropping, resizing."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from tff.data.layout import real_source
from tff.types import Batch, Pixels

#: The kinds of files that are read, whatever their names say. Pillow knows forty more, one of which
#: (PostScript) it hands to an interpreter of programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
#: Larger images are refused: a small file may unfold into all of the memory.
MAX_PIXELS = 100_000_000
# Pixels as stored, as Pillow and the published code see them: no rotation by EXIF.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
#: Modes of Pillow that OpenCV, which is faster, turns into the same pixels.
_ALIKE = {"RGB", "L"}
_PNG = b"\x89PNG\r\n\x1a\n"
_HIGH_BYTE = {"I;16", "I;16B", "I;16L", "I"}
_PLAIN = (OSError, SyntaxError, ValueError, TypeError, EOFError, cv2.error)


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """The bytes of an image file as (H, W, 3) RGB uint8.

    Grey values stand in all three channels; a palette is looked up; transparency is dropped, not
    blended; of 16 bits the upper 8 are kept; CMYK is converted as Pillow does; of an animation the
    first picture is taken; a rotation in the EXIF data is not applied.

    Args:
        data: the whole file.
        name: of the file, for messages.

    Raises:
        ValueError: the image is damaged or too large; the message names it.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS}")
            if image.mode in _ALIKE and image.format in ("PNG", "JPEG"):
                _require_chunks(data)
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
                if pixels is None:
                    raise ValueError("damaged")
                return np.asarray(pixels, np.uint8)
            if image.mode in _HIGH_BYTE:
                values = np.asarray(image).astype(np.int64) >> 8
                return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
            return np.array(image.convert("RGB"), np.uint8)
    except UnidentifiedImageError:
        raise ValueError(
            f"{name} ({len(data)} bytes): damaged, or no image at all; repair or remove it"
        ) from None
    except Exception as error:
        raise ValueError(
            f"{name} ({len(data)} bytes): damaged image ({damage(error)}); repair or remove it"
        ) from error


def _require_chunks(data: bytes) -> None:
    """Of a PNG: OpenCV makes room for all that a chunk says it holds, up to 4 GB, unseen."""
    at = len(_PNG) if data.startswith(_PNG) else len(data)
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise ValueError("truncated, or a chunk says that it is longer than the file")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end + 4  # behind the check sum


def damage(error: Exception) -> str:
    """In words, over what the readers stumbled; bytes made for it let them raise anything."""
    return str(error) if isinstance(error, _PLAIN) else repr(error)


#: Between the name of a Parquet file and the place of an image in it.
ROW_SEPARATOR = "::"
#: Column with the bytes of the images, and where they may stand within it.
IMAGE_COLUMN = "image_data"
# Of a Parquet file only: `::` may also stand in the names of folders.
_ROW = re.compile(rf"(?P<file>.+\.parquet){ROW_SEPARATOR}(?P<group>\d+)\.(?P<row>\d+)", re.DOTALL)


def pixels(path: str) -> NDArray[np.uint8]:
    """The image behind a path of a manifest as (H, W, 3) RGB; errors as of `read` and `decode`."""
    return decode(read(path), path)


def read(path: str) -> bytes:
    """The bytes behind a path of a manifest.

    Args:
        path: of a file, or `FILE.parquet::GROUP.ROW`.

    Raises:
        ValueError: the file cannot be read; the message names it.
    """
    row = _ROW.fullmatch(path)
    try:
        if row is not None:
            return _group(row["file"], int(row["group"]))[int(row["row"])]
        if Path(path).exists() and not Path(path).is_file():
            raise OSError("no regular file")  # a pipe or a device may have no end
        return Path(path).read_bytes()
    except (OSError, IndexError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


@lru_cache(maxsize=4)
def _group(file: str, group: int) -> list[bytes]:
    """The images of a row group: the smallest piece that can be read at once."""
    column = pq.ParquetFile(file).read_row_group(group, columns=[IMAGE_COLUMN])[IMAGE_COLUMN]
    return encoded(column.to_pylist(), file)


def encoded(values: Iterable[Any], name: str) -> list[bytes]:
    """The bytes of images in a column, where they may stand in a field of their own.

    Args:
        values: of the column; a missing one is no bytes.
        name: of the file, for messages.

    Raises:
        ValueError: it holds anything else than bytes.
    """
    found = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    if odd := [type(one).__name__ for one in found if not isinstance(one, bytes | None)]:
        raise ValueError(
            f"{name}: the column {IMAGE_COLUMN} holds {odd[0]}, expected the bytes of images"
        )
    return [one or b"" for one in found]


_CROP = re.compile(r"(center|centre|random|five)(\d+)")


@dataclass(frozen=True)
class View:
    """Resize, then crop.

    Args:
        crop: `none` for whole images, or `center224`, `random224` (one place for each image, drawn
            with the seed) or `five224` (the corners and the centre; the mean logit counts).
        resize: length of the shorter side in pixels, bilinear and antialiased as by Pillow; None
            leaves sizes alone.

    Raises:
        ValueError: an unknown crop, or a resize below the side of the crop.
    """

    crop: str = "none"
    resize: int | None = None

    def __post_init__(self) -> None:
        if self.crop != "none" and not _CROP.fullmatch(self.crop):
            raise ValueError(
                f"data.crop={self.crop}: expected none, or center, random or five with the side in "
                "pixels, such as center224"
            )
        if self.resize is not None and self.resize < max(1, self.side or 0):
            raise ValueError(f"data.resize={self.resize}: less than data.crop={self.crop}")

    @property
    def kind(self) -> str:
        """What is cropped: none, center, random or five."""
        return self.crop.rstrip("0123456789").replace("centre", "center")

    @property
    def side(self) -> int | None:
        """Side of the crop in pixels."""
        match = _CROP.fullmatch(self.crop)
        return int(match[2]) if match else None

    @property
    def count(self) -> int:
        """Views of one image."""
        return 5 if self.kind == "five" else 1

    def sizes(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N, 2) heights and widths of images -> those of their views."""
        if self.side is not None:
            return np.full_like(sizes, self.side)
        return sizes if self.resize is None else np.array([self._resized(h, w) for h, w in sizes])

    def apply(self, image: Pixels, seed: int, number: int, name: str) -> Pixels:
        """One view of an image (H, W, 3).

        Args:
            seed: of a random crop.
            number: of the view, 0 to `count` - 1.
            name: of the image, for messages.

        Raises:
            ValueError: the image is smaller than the crop, or would be too large to be held: a
                strip of one pixel by millions fits in memory until it is resized.
        """
        height, width = image.shape[:2]
        if self.resize is not None and min(height, width) != self.resize:
            was = f"{height}x{width}"
            height, width = self._resized(height, width)
            if height * width > MAX_PIXELS:
                raise ValueError(
                    f"{name}: {was} pixels would become {height}x{width} by "
                    f"data.resize={self.resize}, more than {MAX_PIXELS}; remove it or leave "
                    "sizes alone with data.resize=null"
                )
            small = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            image = np.asarray(small)
        if self.side is None:
            return image
        if min(height, width) < self.side:
            raise ValueError(
                f"{name}: {height}x{width} pixels, smaller than data.crop={self.crop}; "
                f"data.resize={self.side} would enlarge it"
            )
        top, left = self._corner(height - self.side, width - self.side, seed, number)
        return image[top : top + self.side, left : left + self.side]

    def _corner(self, down: int, right: int, seed: int, number: int) -> tuple[int, int]:
        if self.kind == "random":
            rng = np.random.default_rng(seed)
            return int(rng.integers(down + 1)), int(rng.integers(right + 1))
        corners = [(0, 0), (0, right), (down, 0), (down, right)]
        return corners[number] if number < self.count - 1 else (down // 2, right // 2)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        # As torchvision's Resize rounds the longer side, by which detectors were trained.
        assert self.resize is not None
        if height < width:
            return self.resize, int(self.resize * width / height)
        return int(self.resize * height / width), self.resize


WHOLE_IMAGE = View()


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
        manifest: as `manifest.list_images` makes it, numbered 0, 1, ...
        view: what of an image is seen.
        transform: augmentation, applied in place of the view's crop.
        match_format: whether every image is compressed alike (JPEG) before anything else.
        real_of: generator -> the `generator` of the real images that belong to it, where several
            share them.
        skipped: `path` and `problem` of files that were left out.
        notes: what a reader of a report should know of the set.
    """

    manifest: pd.DataFrame
    view: View = WHOLE_IMAGE
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
        real = real_source(generator, self.real_of)
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

    def select(self, generators: list[str] | None, classes: list[str] | None) -> Images:
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

    def subsample(self, limit: int | None, seed: int = 0) -> Images:
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
