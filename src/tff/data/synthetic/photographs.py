"""Photographs with known licences, and patches sampled from them."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from tff.data.datamodule import SPLITS
from tff.data.image_file import FORMATS, decode_opened, describe_damage
from tff.data.manifest import SUFFIXES
from tff.data.tree import walk
from tff.types import Pixels

log = logging.getLogger(__name__)

_ORIENTATION = ExifTags.Base.Orientation

# Together they bound the memory to 600 MB.
MAX_FILES = 200  # photographs used of a folder
MAX_SIDE = 1024  # pixels used of each, from its center


class Credit(NamedTuple):
    """Author and licence of a photograph."""

    author: str
    licence: str
    source: str


class Photograph(NamedTuple):
    """One photograph at its native resolution; `pixels` is (H, W, 3) uint8 RGB."""

    name: str
    pixels: Pixels
    credit: Credit


#: `train`, `val`, `test` -> photographs; none is in two.
PhotographSplit = dict[str, list[Photograph]]


class EmbeddedPhotograph(NamedTuple):
    """A photograph in an installed package, and the split that it belongs to."""

    split: str
    package: str
    file: str
    credit: Credit


# Pixels that were once JPEG carry a grid of 8x8 blocks: training and test hold some of either kind.
# The most colorful photographs are for training: a detector that has never seen such
# colors takes them for generated. Only clear licences are used: scikit-image's motorcycle has none.
EMBEDDED = (
    EmbeddedPhotograph("train", "skimage", "data/astronaut.png",
             Credit("NASA", "public domain", "https://flic.kr/p/r9qvLn")),
    EmbeddedPhotograph("test", "skimage", "data/coffee.png",
             Credit("Rachel Michetti", "CC0", "scikit-image, courtesy of Pikolo Espresso Bar")),
    EmbeddedPhotograph("train", "skimage", "data/rocket.jpg",
             Credit("SpaceX", "public domain",
                    "https://www.flickr.com/photos/spacexphotos/16511594820")),
    EmbeddedPhotograph("train", "sklearn", "datasets/images/china.jpg",
             Credit("danielbuechele", "CC BY 2.0",
                    "https://www.flickr.com/photos/danielbuechele/6061409035")),
    EmbeddedPhotograph("test", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg",
             Credit("United States Navy", "public domain",
                    "http://commons.wikimedia.org/wiki/File:Grace_Hopper.jpg")),
    EmbeddedPhotograph("val", "skimage", "data/chelsea.png",
             Credit("Stefan van der Walt", "CC0", "scikit-image")),
    EmbeddedPhotograph("train", "sklearn", "datasets/images/flower.jpg",
             Credit("vultilion", "CC BY 2.0",
                    "https://www.flickr.com/photos/vultilion/6056698931")),
)  # fmt: skip


def load_embedded() -> PhotographSplit:
    """Photographs of installed packages, in their fixed split."""
    split: PhotographSplit = {name: [] for name in SPLITS}
    for item in EMBEDDED:
        spec = find_spec(item.package)  # finds the folder; an import would take seconds
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"{item.package} is not installed; {item.file} is part of it")
        data = (Path(spec.origin).parent / item.file).read_bytes()
        pixels = _upright_pixels(data, item.file)
        split[item.split].append(Photograph(Path(item.file).stem, pixels, item.credit))
    return split


def load_folder(folder: Path, seed: int, smallest: int) -> PhotographSplit:
    """Photographs below a folder, split at random: about 15 % val, 25 % test.

    Copies of a file are used once, so that no photograph is in two splits. At most `MAX_FILES`
    random photographs are used, and the central `MAX_SIDE` pixels of each.

    Args:
        folder: holds image files, at any depth.
        seed: of the split.
        smallest: least length of a side in pixels.

    Raises:
        ValueError: fewer than three different photographs, or one that is unreadable or too small;
            the message names it.
    """
    found = list_photographs(folder)
    for line in walk(folder, SUFFIXES).describe_unread(lambda _: True):
        log.warning("data.photos=%s: %s", folder, line)
    if len(found) < 3:
        raise ValueError(
            f"{folder} holds {len(found)} different photographs, at least 3 are needed: one each "
            f"for training, validation and test ({', '.join(sorted(SUFFIXES))})"
        )
    chosen = np.random.default_rng(seed).permutation(len(found))[:MAX_FILES]
    if len(chosen) < len(found):
        log.warning("%s: only %d of %d photographs are used", folder, len(chosen), len(found))
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
    """Image files below a folder, sorted by name, without copies."""
    if not folder.is_dir():
        raise ValueError(f"data.photos={folder}: no such folder")
    # Files only: a pipe with such a name would block forever.
    tree = walk(folder, SUFFIXES)
    found = sorted(path for file in tree.files() if (path := folder / file).is_file())
    return list({compute_sha256(path): path for path in reversed(found)}.values())[::-1]


def compute_sha256(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(file: Path, folder: Path) -> Photograph:
    pixels = _upright_pixels(file.read_bytes(), str(file))
    height, width, _ = pixels.shape
    top, left = max(0, height - MAX_SIDE) // 2, max(0, width - MAX_SIDE) // 2
    # A copy frees the rest of a large photograph.
    central = pixels[top : top + MAX_SIDE, left : left + MAX_SIDE].copy()
    name = file.relative_to(folder).as_posix()
    return Photograph(name, central, Credit("unknown", "the user's own folder", name))


def _upright_pixels(data: bytes, name: str) -> Pixels:
    """Pixels of a photograph, rotated as its EXIF data say."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            upright = Image.fromarray(decode_opened(image, data))
            upright.getexif()[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
            return np.asarray(ImageOps.exif_transpose(upright))
    except Exception as error:
        raise ValueError(f"{name} cannot be read as an image: {describe_damage(error)}") from error


def sample_patches(
    photographs: Sequence[Photograph], count: int, size: int, rng: np.random.Generator
) -> Pixels:
    """Random square crops at native resolution, rotated by random quarter turns, half mirrored.

    Crops of almost no variance (sky, blurred background) are replaced: an up-sampler leaves
    hardly a trace there.

    Returns:
        (count, size, size, 3) uint8.

    Raises:
        ValueError: none of many draws is textured.
    """
    return np.stack([_patch(photographs, size, rng)[1] for _ in range(count)])


def photographs_of_patches(
    photographs: Sequence[Photograph], count: int, size: int, rng: np.random.Generator
) -> list[str]:
    """Name of the photograph of each patch that `sample_patches` returns for the same arguments."""
    return [_patch(photographs, size, rng)[0] for _ in range(count)]


def _patch(
    photographs: Sequence[Photograph], size: int, rng: np.random.Generator
) -> tuple[str, Pixels]:
    for _ in range(1000):
        name, pixels, _credit = photographs[int(rng.integers(len(photographs)))]
        top, left = (rng.integers(side - size + 1) for side in pixels.shape[:2])
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        patch = pixels[top : top + size, left : left + size]
        if patch.mean(axis=2).std() > 8:  # of 255
            turned = np.rot90(patch, turns)
            return name, turned[:, ::-1] if mirrored else turned
    raise ValueError(f"no textured {size}x{size} patch in {', '.join(p.name for p in photographs)}")
