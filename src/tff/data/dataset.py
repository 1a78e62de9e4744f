"""A row of a manifest becomes pixels: read, decoded, resized, cropped."""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, BinaryIO, Protocol

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import Dataset

from tff.data.groups import count_shared, count_units
from tff.data.image_file import MAX_BYTES, MAX_PIXELS, decode
from tff.data.layout import real_source
from tff.foreign_files import open_regular, read_file
from tff.options import Allowed, checked, to_names, whole
from tff.parquet import open_parquet, read_columns
from tff.types import Batch, Ints, Pixels

#: JPEG quality of all images under `match_format`; lower than that of most sets.
MATCHED_QUALITY = 75
#: Separates the path of a Parquet file from the position of an image in it (GROUP.ROW).
ROW_SEPARATOR = "::"
#: Column of a Parquet file with the encoded images.
IMAGE_COLUMN = "image_data"

_CROP = re.compile(r"(center|centre|random|five)([1-9]\d*)")
#: Allowed values of the option `crop`.
CROPS = Allowed(
    lambda crop: crop == "none" or _CROP.fullmatch(crop) is not None,
    "none, or center, random or five with the side in pixels, such as center224",
)
# Only behind the name of a Parquet file: folders may have `::` in their names.
_ROW = re.compile(rf"(?P<file>.+\.parquet){ROW_SEPARATOR}(?P<group>\d+)\.(?P<row>\d+)", re.DOTALL)
_NO_FILES = pd.DataFrame({"path": [], "problem": []}, dtype="str")


@dataclass(frozen=True)
@checked("data")
class View:
    """View of an image: resized, then cropped.

    Args:
        crop: `none` for full images, or `center224`, `random224` (one position an image, chosen
            by the seed) or `five224` (corners and center; logits are averaged).
        resize: length of the shorter side in pixels, bilinear and antialiased as in Pillow; None
            keeps the size.

    Raises:
        ValueError: unknown crop, or resize below the side of the crop.
    """

    crop: Annotated[str, CROPS] = "none"
    resize: Annotated[int, whole(1)] | None = None

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize < (self.side or 0):
            raise ValueError(f"data.resize={self.resize}: less than data.crop={self.crop}")

    @property
    def kind(self) -> str:
        """Kind of crop: none, center, random or five."""
        return self.crop.rstrip("0123456789").replace("centre", "center")

    @property
    def side(self) -> int | None:
        """Side of the crop in pixels; None without a crop."""
        match = _CROP.fullmatch(self.crop)
        return int(match[2]) if match else None

    @property
    def count(self) -> int:
        """Number of crops of each image."""
        return 5 if self.kind == "five" else 1

    def sizes(self, sizes: Ints) -> Ints:
        """(N, 2) heights and widths of images -> (N, 2) heights and widths of their views."""
        if self.side is not None:
            return np.full_like(sizes, self.side)
        return sizes if self.resize is None else np.array([self._resized(h, w) for h, w in sizes])

    def apply(self, image: Pixels, seed: int, number: int, name: str) -> Pixels:
        """Resize and crop an image (H, W, 3).

        Args:
            seed: of a random crop.
            number: of the crop, from 0 to `count` - 1.
            name: of the image, for messages.

        Raises:
            ValueError: the image is smaller than the crop, or too large once resized: a strip one
                pixel high and millions wide fits in memory only until then.
        """
        height, width = image.shape[:2]
        if self.resize is not None and min(height, width) != self.resize:
            before = f"{height}x{width}"
            height, width = self._resized(height, width)
            if height * width > MAX_PIXELS:
                raise ValueError(
                    f"{name}: {before} pixels would become {height}x{width} by "
                    f"data.resize={self.resize}, more than {MAX_PIXELS}; remove the image, or keep "
                    "sizes with data.resize=null"
                )
            resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            image = np.asarray(resized)
        if self.side is None:
            return image
        if min(height, width) < self.side:
            raise ValueError(
                f"{name}: {height}x{width} pixels, smaller than data.crop={self.crop}; enlarge it "
                f"with data.resize={self.side}"
            )
        top, left = self._corner(height - self.side, width - self.side, seed, number)
        return image[top : top + self.side, left : left + self.side]

    def _corner(self, bottom: int, right: int, seed: int, number: int) -> tuple[int, int]:
        """Top and left of a crop, which may be at most `bottom` and `right`."""
        if self.kind == "random":
            rng = np.random.default_rng(seed)
            return int(rng.integers(bottom + 1)), int(rng.integers(right + 1))
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
        return corners[number] if number < self.count - 1 else (bottom // 2, right // 2)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        # The longer side is rounded as in torchvision's Resize, with which detectors are trained.
        assert self.resize is not None
        if height < width:
            return self.resize, int(self.resize * width / height)
        return int(self.resize * height / width), self.resize


WHOLE_IMAGE = View()


class Transform(Protocol):
    """An albumentations pipeline: (H, W, 3) uint8 in and out, seeded before each call."""

    def __call__(self, *, image: Pixels) -> Mapping[str, Any]: ...
    def set_random_seed(self, seed: int) -> None: ...


@dataclass(frozen=True)
class Used:
    """Images that served another purpose, so that nothing can be tested on them.

    Attributes:
        digests: (N,) of their content; see `digest_content`.
        purpose: as it follows "are among those" in a sentence.
        include: use them all the same, with an alarm; otherwise they are left out.
    """

    digests: Ints
    purpose: str = "that the detector was trained on"
    include: bool = False


@dataclass(frozen=True)
class Images(Dataset[Batch]):
    """Images of a manifest; a data set with keys (epoch, row) or (epoch, row, number of the crop).

    A sample is a pure function of (seed, epoch, row), whichever worker loads it and in which order.

    Attributes:
        manifest: as of `manifest.list_images`, with index 0, 1, ...
        view: resizing and crop of each image.
        transform: augmentation, applied in place of the crop of the view.
        seed: of random crops and augmentations.
        match_format: whether every image is compressed alike (JPEG) before anything else.
        real_of: generator -> `generator` of the real images that it is compared with, where
            several generators share them.
        skipped: `path` and `problem` of files that cannot be used.
        notes: remarks on the set for the reader of a report, in sentences.
        alarms: reasons why numbers of these images may be meaningless, in sentences.
        unit: what a group of images is (see `groups`), in a word.
    """

    manifest: pd.DataFrame
    view: View = WHOLE_IMAGE
    transform: Transform | None = None
    seed: int = 0
    match_format: bool = False
    real_of: Mapping[str, str] = field(default_factory=dict)
    skipped: pd.DataFrame = field(default_factory=_NO_FILES.copy)
    notes: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    unit: str = "group"

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, ...]) -> Batch:
        """One image as (3, H, W) uint8, with its label and row."""
        epoch, row, *number = key
        path, label = self.manifest.at[row, "path"], self.manifest.at[row, "label"]
        image = load_pixels(str(path))
        if self.match_format:
            image = compress(image, MATCHED_QUALITY)
        seed = zlib.crc32(f"{self.seed}/{epoch}/{row}".encode())
        view = self.view if self.transform is None else View(resize=self.view.resize)
        image = view.apply(image, seed, number[0] if number else 0, str(path))
        if self.transform is not None:
            image = self.augment(image, seed, str(path))
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return Batch(tensor, torch.tensor(int(str(label))), torch.tensor(row))

    def augment(self, image: Pixels, seed: int, name: str) -> Pixels:
        """Apply the augmentation.

        Raises:
            ValueError: it cannot take the image, whose name is in the message.
        """
        assert self.transform is not None
        self.transform.set_random_seed(seed)
        try:
            return np.asarray(self.transform(image=image)["image"])
        except Exception as error:  # albumentations raises classes of its own
            height, width = image.shape[:2]
            raise ValueError(
                f"{name}: {height}x{width} pixels, which the augmentation cannot take: {error}"
            ) from error

    @property
    def generators(self) -> list[str]:
        """Names of the generators, sorted."""
        return sorted(self.manifest["generator"][self.manifest["label"] == 1].unique())

    def rows_of(self, generator: str) -> Ints:
        """Rows of the images of a generator and of the real images that it is compared with."""
        names, label = self.manifest["generator"], self.manifest["label"]
        real = real_source(generator, self.real_of)
        fake_rows = (names == generator) & (label == 1)
        real_rows = (names == real) & (label == 0)
        return np.flatnonzero(fake_rows | real_rows)

    def counts(self) -> dict[str, str]:
        """Generator -> numbers of its images, in words."""
        counts = {}
        for generator in self.generators:
            label = self.manifest["label"].to_numpy()[self.rows_of(generator)]
            counts[generator] = f"{(label == 0).sum()} real, {(label == 1).sum()} generated"
        return counts

    @cached_property
    def digests(self) -> Ints:
        """(N,) digest of the content of each file; see `digest_content`."""
        if "digest" in self.manifest:
            return self.manifest["digest"].to_numpy(np.int64)
        files = (io.BytesIO(read_bytes(str(path))) for path in self.manifest["path"])
        return np.array([digest_content(file) for file in files], np.int64)

    @cached_property
    def groups(self) -> Ints | None:
        """(N,) number of the group of each image: those of one have one source (`data.group`).

        None if sources are not known: each image is a group of its own.
        """
        if "group" not in self.manifest:
            return None
        names = self.manifest["group"]
        numbers, found = pd.factorize(names, sort=True)
        alone = (names == "").to_numpy()
        return np.where(alone, len(found) + np.arange(len(self)), numbers).astype(np.int64)

    def sizes(self) -> Ints:
        """(N, 2) height and width of the view of each image, without augmentation.

        Raises:
            ValueError: images are smaller than the crop.
        """
        sizes = self.manifest[["height", "width"]].to_numpy(np.int64)
        resized = View(resize=self.view.resize).sizes(sizes)
        small = np.flatnonzero((resized < (self.view.side or 0)).any(axis=1))
        if len(small) and self.transform is None:
            height, width = resized[small[0]]
            raise ValueError(
                f"{self.manifest['path'].iloc[small[0]]}: {height}x{width} pixels; {len(small)} of "
                f"{len(self)} images are smaller than data.crop={self.view.crop}. Enlarge them "
                f"with data.resize={self.view.side}, or crop less"
            )
        return self.view.sizes(sizes)

    def select(
        self, generators: Sequence[str] | str | None, classes: Sequence[str] | str | None
    ) -> Images:
        """Images of the given generators and classes; None selects all.

        Raises:
            ValueError: unknown generator or class, or no text where a name is expected.
        """
        generators = to_names("data.generators", generators)
        classes = to_names("data.classes", classes)
        keep = np.ones(len(self), bool)
        known_classes = sorted(set(self.manifest["class"]) - {""})
        for option, names, known in (
            ("generators", generators, self.generators), ("classes", classes, known_classes),
        ):  # fmt: skip
            if unknown := sorted(set(names or ()) - set(known)):
                there = f"known are {', '.join(known)}" if known else f"this set has no {option}"
                # `1_5` in a YAML file is the number 15.
                meant = {name.replace("_", ""): name for name in known}
                quoted = [f'"{meant[name]}"' for name in unknown if name in meant]
                hint = f". In a YAML file, quote names of digits: {', '.join(quoted)}"
                raise ValueError(
                    f"data.{option}={unknown}: unknown; {there}{hint if quoted else ''}"
                )
        if generators is not None:
            rows = [self.rows_of(generator) for generator in generators]
            keep &= np.isin(np.arange(len(self)), np.concatenate([np.empty(0, int), *rows]))
        if classes is not None:
            keep &= self.manifest["class"].isin(classes).to_numpy()
        return replace(self, manifest=self.manifest[keep].reset_index(drop=True))

    def leave_out(self, used: Used) -> Images:
        """Images without those of the same content that served another purpose.

        Raises:
            ValueError: none are left, or only real or only generated ones of a generator.
        """
        known = np.isin(self.digests, used.digests)
        if not (count := int(known.sum())):
            return self
        what = f"{count:,} of {len(self):,} images are among those {used.purpose}"
        if used.include:
            text = f"{what}: the numbers say little about images that are new to the detector."
            return replace(self, alarms=(*self.alarms, text))
        left = replace(self, manifest=self.manifest[~known].reset_index(drop=True))
        gone = [name for name in self.generators if not len(left.rows_of(name))]
        lost = {
            name: "real" if (left.manifest["label"].iloc[rows] == 1).all() else "generated"
            for name in set(self.generators) - set(gone)
            if left.manifest["label"].iloc[rows := left.rows_of(name)].nunique() < 2
        }
        if lost or not left.generators:
            kinds = [f"the {kind} images of {name}" for name, kind in sorted(lost.items())]
            raise ValueError(
                f"all {', '.join(kinds) or 'images'} are among those {used.purpose}, such as "
                f"{self.manifest['path'][known].iloc[0]}. Name other images (data.root, "
                "data.generators); or use these all the same, with a warning on every page: "
                "trained_images=include"
            )
        text = f"{what}; they are left out" + (f", all of {', '.join(gone)}" if gone else "")
        if "group" in self.manifest:
            names = self.manifest["group"]
            n_images, n_groups = count_shared(names[~known], names[known])
            if n_images:
                same = count_units(n_groups, self.unit)
                text += f"; {n_images:,} of those that are left belong to {same} of theirs"
        return replace(left, notes=(*self.notes, f"{text}."))

    def subsample(self, limit: int | None, seed: int = 0) -> Images:
        """At most `limit` random images of each generator and label, evenly from all classes."""
        if limit is None:
            return self
        table = self.manifest.sample(frac=1, random_state=seed)
        if "class" in table:  # classes take turns
            turn = table.groupby(["generator", "label", "class"]).cumcount()
            table = table.assign(_turn=turn).sort_values("_turn", kind="stable")
        rows = table.groupby(["generator", "label"]).head(limit).index.sort_values()
        return replace(self, manifest=self.manifest.loc[rows].reset_index(drop=True))


def digest_content(stream: BinaryIO) -> int:
    """Digest of a file's content, 64 bits: files with equal bytes have the same."""
    stream.seek(0)
    digest = hashlib.sha256()
    while piece := stream.read(1 << 20):
        digest.update(piece)
    return int.from_bytes(digest.digest()[:8], "big", signed=True)


def compress(image: Pixels, quality: int) -> Pixels:
    """(H, W, 3) RGB after JPEG compression, 4:2:0."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _done, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB), np.uint8)


def load_pixels(path: str) -> Pixels:
    """Image at a path of a manifest as (H, W, 3) RGB; raises as `read_bytes` and `decode` do."""
    return decode(read_bytes(path), path)


def read_bytes(path: str) -> bytes:
    """Encoded image at a path of a manifest.

    Args:
        path: of a file, or `FILE.parquet::GROUP.ROW`.

    Raises:
        ValueError: the file cannot be read; the message names it.
    """
    row = _ROW.fullmatch(path)
    try:
        if row is not None:
            return _read_row_group(row["file"], int(row["group"]))[int(row["row"])]
        return read_file(path, MAX_BYTES)
    except (OSError, IndexError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


@lru_cache(maxsize=4)
def _read_row_group(file: str, group: int) -> list[bytes]:
    """Encoded images of a row group, the smallest piece that can be read at once."""
    with open_regular(file) as stream:
        column = read_columns(open_parquet(stream), [IMAGE_COLUMN], group)[IMAGE_COLUMN]
    return extract_bytes(column.to_pylist(), file)


def extract_bytes(values: Iterable[Any], name: str) -> list[bytes]:
    """Encoded images in the image column of a Parquet file.

    Args:
        values: bytes, or structs with a field `bytes`; a missing value becomes b"".
        name: of the file, for messages.

    Raises:
        ValueError: a value is anything else.
    """
    found = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    if other := [type(value).__name__ for value in found if not isinstance(value, bytes | None)]:
        raise ValueError(
            f"{name}: the column {IMAGE_COLUMN} holds {other[0]}, expected the bytes of images"
        )
    return [value or b"" for value in found]
