"""Planted: photographs, and copies of them that differ by one known cue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tff.data.datamodule import SPLITS, Data
from tff.data.manifest import Manifest
from tff.data.synthetic import image_tree
from tff.data.synthetic.photographs import (
    Split,
    digest,
    list_photographs,
    load_embedded,
    load_folder,
    sample_patches,
)
from tff.data.synthetic.planted_cues import BLOCK, CUES, REAL, PlantedCue
from tff.types import Pixels

RECIPE = 1  # part of a cached folder's name: raise it with every change that changes the images
MARGIN = 2 * BLOCK  # pixels cut off at last, where blur and filters meet the border; whole blocks


@dataclass(frozen=True)
class PlantedSettings:
    """What the images depend on.

    Args:
        photos: folder of the user's own photographs; None for those of the installed packages.
        seed: of the crops, of random cues and of the split of `photos`.
        size: side of the images in pixels, a multiple of 8: turned, a grid of blocks stays one.
        counts: real images (and as many counterfeits) of `train`, `val` and, per cue, of `test`.
        cue: what counterfeits of `train` and `val` bear, a key of `cues.CUES`.
        strength: of the cues, above 0.

    Raises:
        ValueError: a setting cannot be used; the message says why.
    """

    photos: Path | str | None = None
    seed: int = 0
    size: int = 64
    counts: Mapping[str, int] = field(
        default_factory=lambda: {"train": 1500, "val": 200, "test": 100}
    )
    cue: str = "chroma"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.cue not in CUES:
            raise ValueError(f"data.cue={self.cue}: there is no such cue; choose {', '.join(CUES)}")
        if not 0 < self.strength < math.inf:
            raise ValueError(f"data.strength={self.strength}: must be above 0; 1 is the usual one")
        if self.size % BLOCK or self.size < 2 * BLOCK:
            raise ValueError(f"data.size={self.size}: must be a multiple of {BLOCK}, at least 16")
        image_tree.require_counts(self.counts)

    def photographs(self) -> Split:
        """Reads the photographs.

        Raises:
            ValueError: the folder of photographs cannot be used.
        """
        if self.photos is None:
            return load_embedded()
        return load_folder(Path(self.photos), self.seed, smallest=self.size + 2 * MARGIN)

    def plain(self) -> dict[str, Any]:
        """The settings as JSON holds them; the user's photographs by the digests of their bytes."""
        photos = self.photos and sorted(
            digest(file) for file in list_photographs(Path(self.photos))
        )
        return asdict(self) | {"counts": dict(self.counts), "photos": photos}


class Planted(Data):
    """Photographs, and others with a cue planted in them, made on first use and kept.

    `train/CUE/{0_real,1_fake}` and `val/CUE/...` hold the chosen cue, `test/...` all of them, each
    as a generator of its own, so that one sees which of them the detector takes notice of. In
    `none` nothing is planted: nothing may be found there.

    Real images and counterfeits are crops drawn independently in the same way, from the same
    photographs of a set. Were a counterfeit made of the very crop that is in the real set, rows
    would come in pairs that no interval over images accounts for, and the control could not fail:
    identical images with both labels score 0.5 whatever leaks.

    Args:
        cache: folder in which the images are kept, one folder for each choice of settings.
        photos: folder of the user's own photographs; None: those that come with the dependencies.
        cue: what counterfeits of training and validation bear: a key of `cues.CUES`.
        strength: of every cue; 1 is the usual one.
        counts: images of each label in `train`, `val` and each cue of `test`; None: 1500, 200, 100.
        size: side of the square images, in pixels, all of which is used.
        options: see `Data`.

    Raises:
        ValueError: an option cannot be used; the message names it.
    """

    def __init__(
        self,
        cache: str,
        photos: str | None = None,
        cue: str = "chroma",
        strength: float = 1.0,
        counts: Mapping[str, int] | None = None,
        size: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(cache=cache, size=size, **options)
        self.folders = Path(cache).expanduser()
        chosen: dict[str, Any] = {} if counts is None else {"counts": dict(counts)}
        where = str(Path(photos).expanduser()) if photos else None
        self.settings = PlantedSettings(
            where, self.seed, size, cue=cue, strength=float(strength), **chosen
        )

    def prepare_data(self) -> None:
        """Write the images, unless that was done before."""
        self.folder()

    def folder(self) -> Path:
        """Where the images are."""
        folder = image_tree.cache_folder(self.folders, "planted", RECIPE, self.settings.plain())
        return folder if image_tree.is_complete(folder) else build(folder, self.settings)

    def list_images(self, split: str) -> Manifest:
        """All images of a set."""
        return self._list_folder(self.folder() / split)


def build(folder: Path, settings: PlantedSettings) -> Path:
    """Write the data set as a tree of PNG files, and return its folder."""
    split = settings.photographs()
    with image_tree.publish(folder) as draft:
        for part in SPLITS:
            for cue in CUES if part == "test" else [settings.cue]:
                for kind, change in (("0_real", REAL[cue]), ("1_fake", CUES[cue])):
                    rng = image_tree.random_stream(settings.seed, part, cue, kind)
                    side = settings.size + 2 * MARGIN
                    crops = sample_patches(split[part], settings.counts[part], side, rng)
                    image_tree.write_images(
                        _changed(crops, change, settings, rng), draft / part / cue / kind
                    )
        image_tree.write_description(draft, settings.plain(), split)
    return folder


def _changed(
    crops: Pixels, cue: PlantedCue, settings: PlantedSettings, rng: np.random.Generator
) -> Pixels:
    changed = np.stack([cue(crop, settings.strength, rng) for crop in crops])  # one: less memory
    return changed[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
