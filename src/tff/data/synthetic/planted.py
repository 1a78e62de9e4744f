"""Planted cues: photographs, and others that differ by one known cue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from tff.data.datamodule import SPLITS
from tff.data.synthetic import image_tree
from tff.data.synthetic.photographs import photographs_of_patches, sample_patches
from tff.data.synthetic.planted_cues import BLOCK, CUES, REAL, PlantedCue
from tff.options import PATH, Allowed, checked, number, one_of, whole
from tff.types import Pixels

RECIPE = 1  # part of a cached folder's name: raise it with every change that changes the images
MARGIN = 2 * BLOCK  # pixels cut off where blur and filters meet the border; whole blocks
#: Allowed sides of the images in pixels.
MULTIPLE_OF_8 = Allowed(
    lambda size: whole(2 * BLOCK).holds(size) and size % BLOCK == 0,
    f"a multiple of {BLOCK}, at least {2 * BLOCK}",
)
#: Allowed strengths of a cue.
STRENGTH = number(above=0, hint="; 1 is the usual one")


class Planted(image_tree.GeneratedSet):
    """Photographs, and others with a planted cue, made on first use.

    `train/CUE/{0_real,1_fake}` and `val/CUE/...` hold the chosen cue, `test/...` all of them, each
    as a generator of its own, which shows which cues a detector responds to. In `none` nothing is
    planted: it is the control.

    Real and generated images are independent random crops from the same photographs of a split. If
    a fake were made from a crop that is itself in the real set, images would come in pairs that no
    interval over images accounts for, and the control could not fail: identical images with both
    labels score 0.5 whatever leaks.

    Args:
        cache: folder for the images, with a subfolder for each choice of settings.
        photos: folder with photographs of the user; None for those of installed packages.
        cue: cue of training and validation, a key of `planted_cues.CUES`.
        strength: of every cue, above 0; 1 is the usual one.
        counts: images of each label in `train`, `val` and each cue of `test`; None: 1500, 200, 100.
        size: side of the square images in pixels; training sees all of it.
        options: see `Data`.
    """

    @checked("data")
    def __init__(
        self,
        cache: Annotated[str, PATH],
        photos: Annotated[str, PATH] | None = None,
        cue: Annotated[str, one_of(CUES)] = "chroma",
        strength: Annotated[float, STRENGTH] = 1.0,
        counts: Annotated[Mapping[str, int], image_tree.COUNTS] | None = None,
        size: Annotated[int, MULTIPLE_OF_8] = 64,
        **options: Any,
    ) -> None:
        super().__init__(cache=cache, size=size, **options)
        photos = str(Path(photos).expanduser()) if photos else None
        chosen: dict[str, Any] = {} if counts is None else {"counts": dict(counts)}
        self.settings = PlantedSettings(
            photos, self.seed, size, cue=cue, strength=float(strength), **chosen
        )

    def folder(self) -> Path:
        return image_tree.get_or_build(self.cache, "planted", RECIPE, self.settings, build)

    def find_sources(self) -> dict[str, list[str]]:
        return find_sources(self.settings)


@dataclass(frozen=True)
@checked("data")
class PlantedSettings(image_tree.TreeSettings):
    """What the images depend on; see also `TreeSettings`.

    Args:
        size: side of the images in pixels, a multiple of 8: a rotated grid of blocks stays one.
        cue: cue of `train` and `val`, a key of `planted_cues.CUES`.
        strength: of the cues.
    """

    size: Annotated[int, MULTIPLE_OF_8] = 64
    cue: Annotated[str, one_of(CUES)] = "chroma"
    strength: Annotated[float, STRENGTH] = 1.0

    @property
    def crop(self) -> int:
        """Side of the crops in which the cue is planted; their borders are cut off."""
        return self.size + 2 * MARGIN

    @property
    def folders(self) -> list[tuple[str, str, str]]:
        """Split, cue and kind of each folder of images."""
        return [
            (split, cue, kind)
            for split in SPLITS
            for cue in (CUES if split == "test" else [self.cue])
            for kind in ("0_real", "1_fake")
        ]


def build(folder: Path, settings: PlantedSettings) -> Path:
    """Write the data set as a tree of PNG files, and return its folder."""
    photographs = settings.load_photographs(settings.crop)
    with image_tree.write_tree(folder) as draft:
        for split, cue, kind in settings.folders:
            rng = image_tree.random_stream(settings.seed, split, cue, kind)
            count = settings.counts[split]
            crops = sample_patches(photographs[split], count, settings.crop, rng)
            change = (REAL if kind == "0_real" else CUES)[cue]
            images = _change(crops, change, settings.strength, rng)
            image_tree.write_images(images, draft / split / cue / kind)
        image_tree.write_description(draft, settings, photographs)
    return folder


def find_sources(settings: PlantedSettings) -> dict[str, list[str]]:
    """Folder of images, as `build` writes them -> the photograph of each image, by number."""
    photographs = settings.load_photographs(settings.crop)
    return {
        "/".join(folder): photographs_of_patches(
            photographs[folder[0]], settings.counts[folder[0]], settings.crop,
            image_tree.random_stream(settings.seed, *folder),
        )
        for folder in settings.folders
    }  # fmt: skip


def _change(crops: Pixels, cue: PlantedCue, strength: float, rng: np.random.Generator) -> Pixels:
    changed = np.stack([cue(crop, strength, rng) for crop in crops])  # one by one: less memory
    return changed[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
