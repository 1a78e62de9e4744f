"""Photographs with known licences, and patches cut from them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tff.data.datamodule import SPLITS
from tff.data.dataset import FORMATS, MAX_PIXELS, describe_damage
from tff.data.manifest import SUFFIXES

log = logging.getLogger(__name__)

MAX_FILES = 200  # of a folder, and the central
MAX_SIDE = 1024  # pixels of each: together they bound the memory to 600 MB


class Credit(NamedTuple):
    """Whom a photograph is owed to."""

    author: str
    licence: str
    source: str


class Photograph(NamedTuple):
    """One photograph at its native resolution; `pixels` is (H, W, 3) uint8 RGB."""

    name: str
    pixels: NDArray[np.uint8]
    credit: Credit


Split = dict[str, list[Photograph]]
"""`train`, `val`, `test` -> their photographs; none is in two."""


class Embedded(NamedTuple):
    """A photograph inside an installed package, and the split that it always belongs to."""

    split: str
    package: str
    file: str
    credit: Credit


# Pixels that were JPEG once carry a grid of 8x8 blocks, so training and test photographs hold both
# kinds. The most colorful photographs are trained on: a detector that has not met such colors takes
# them for counterfeit. Only clear licences are used: the motorcycle of scikit-image states none.
EMBEDDED = (
    Embedded("train", "skimage", "data/astronaut.png",
             Credit("NASA", "public domain", "https://flic.kr/p/r9qvLn")),
    Embedded("test", "skimage", "data/coffee.png",
             Credit("Rachel Michetti", "CC0", "scikit-image, courtesy of Pikolo Espresso Bar")),
    Embedded("train", "skimage", "data/rocket.jpg",
             Credit("SpaceX", "public domain",
                    "https://www.flickr.com/photos/spacexphotos/16511594820")),
    Embedded("train", "sklearn", "datasets/images/china.jpg",
             Credit("danielbuechele", "CC BY 2.0",
                    "https://www.flickr.com/photos/danielbuechele/6061409035")),
    Embedded("test", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg",
             Credit("United States Navy", "public domain",
                    "http://commons.wikimedia.org/wiki/File:Grace_Hopper.jpg")),
    Embedded("val", "skimage", "data/chelsea.png",
             Credit("Stefan van der Walt", "CC0", "scikit-image")),
    Embedded("train", "sklearn", "datasets/images/flower.jpg",
             Credit("vultilion", "CC BY 2.0",
                    "https://www.flickr.com/photos/vultilion/6056698931")),
)  # fmt: skip


def load_embedded() -> Split:
    """The photographs of the installed wheels, in their fixed split."""
    split: Split = {name: [] for name in SPLITS}
    for item in EMBEDDED:
        spec = find_spec(item.package)  # finds the folder; an import would take seconds
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{item.package} is not installed; {item.file} is part of it")
        with (Path(spec.origin).parent / item.file).open("rb") as file:
            pixels = _pixels(file, item.file)
        split[item.split].append(Photograph(Path(item.file).stem, pixels, item.credit))
    return split


def load_folder(folder: Path, seed: int, smallest: int) -> Split:
    """A folder's photographs (at any depth), split at random: about 15 % val, 25 % test.

    Copies of a file are used once, so that no photograph is in two splits. Of more than
    `MAX_FILES` a random choice is used, and of each the central `MAX_SIDE` pixels.

    Args:
        folder: holds png, jpg, jpeg, webp, bmp or tif files.
        seed: of the split.
        smallest: pixels that each side must have.

    Raises:
        ValueError: fewer than three different photographs, one that cannot be read, or one with a
            side shorter than `smallest`; the message names it.
    """
    found = list_photographs(folder)
    if len(found) < 3:
        raise ValueError(
            f"{folder} holds {len(found)} different photographs, at least 3 are needed: one each "
            f"to train on, to validate on and to test on ({', '.join(sorted(SUFFIXES))})"
        )
    chosen = np.random.default_rng(seed).permutation(len(found))[:MAX_FILES]
    if len(chosen) < len(found):
        log.warning("%s holds %d photographs; %d are used", folder, len(found), len(chosen))
    photographs = [_read(found[index], folder) for index in chosen]
    for photograph in photographs:
        height, width, _ = photograph.pixels.shape
        if min(height, width) < smallest:
            raise ValueError(
                f"{folder / photograph.name} is {width}x{height}, smaller than {smallest} pixels"
            )
    n_val, n_test = max(1, round(0.15 * len(chosen))), max(1, round(0.25 * len(chosen)))
    return {
        "train": photographs[n_val + n_test :],
        "val": photographs[:n_val],
        "test": photographs[n_val : n_val + n_test],
    }


def list_photographs(folder: Path) -> list[Path]:
    """All image files below a folder in the order of their names, copies of a file left out."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    # Files only: opening a pipe that bears such a name would wait for ever.
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return list({digest(path): path for path in reversed(found)}.values())[::-1]


def digest(file: Path) -> str:
    """SHA-256 of the bytes of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(file: Path, folder: Path) -> Photograph:
    with file.open("rb") as stream:
        pixels = _pixels(stream, str(file))
    height, width, _ = pixels.shape
    top, left = max(0, height - MAX_SIDE) // 2, max(0, width - MAX_SIDE) // 2
    # A copy, so that the rest of a large photograph does not stay in memory.
    central = pixels[top : top + MAX_SIDE, left : left + MAX_SIDE].copy()
    name = file.relative_to(folder).as_posix()
    return Photograph(name, central, Credit("unknown", "the user's own folder", name))


def _pixels(stream: IO[bytes], name: str) -> NDArray[np.uint8]:
    try:
        with Image.open(stream, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS}")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:
        raise ValueError(f"{name} cannot be read as an image: {describe_damage(error)}") from error


def sample_patches(
    photographs: Sequence[Photograph], count: int, size: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Random square crops at native resolution, in random quarter turns, half of them mirrored.

    Crops of almost no variance (sky, blurred background) are drawn again: an up-sampler leaves
    hardly a trace there.

    Returns:
        (count, size, size, 3) uint8.

    Raises:
        ValueError: no textured crop was met in many draws.
    """
    return np.stack([_patch(photographs, size, rng) for _ in range(count)])


def _patch(
    photographs: Sequence[Photograph], size: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    for _ in range(1000):
        pixels = photographs[int(rng.integers(len(photographs)))].pixels
        top, left = (rng.integers(side - size + 1) for side in pixels.shape[:2])
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        patch = pixels[top : top + size, left : left + size]
        if patch.mean(axis=2).std() > 8:  # of 255
            turned = np.rot90(patch, turns)
            return turned[:, ::-1] if mirrored else turned
    raise ValueError(f"no textured {size}x{size} patch in {', '.join(p.name for p in photographs)}")
