"""Photographs and their counterfeits by several up-samplers, written as a tree of PNG files.

Enough for a demonstration and for tests; not for claims of accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tff.data import tree
from tff.data.autoencoder import MARGIN, PATCH, UPSAMPLERS, reconstruct, train
from tff.data.patches import patches
from tff.data.photographs import Split, digest, embedded, from_folder, image_files
from tff.data.splits import SPLITS

RECIPE = 3  # part of a cached folder's name: raise it with every change that changes the images


@dataclass(frozen=True)
class Settings:
    """What the images depend on.

    Args:
        photos: folder of the user's own photographs; None for those of the installed packages.
        seed: of the generators, of the crops and of the split of `photos`.
        size: side of the images in pixels, a multiple of 4.
        counts: real images (and as many fakes) of `train`, `val` and, per generator, of `test`.
        seen: generator to train and validate detectors on, a key of `autoencoder.UPSAMPLERS`.
        unseen: generators for the test only.
        steps: training steps of each generator.

    Raises:
        ValueError: a setting cannot be used; the message says why.
    """

    photos: Path | str | None = None
    seed: int = 0
    size: int = 64
    counts: Mapping[str, int] = field(
        default_factory=lambda: {"train": 1500, "val": 200, "test": 100}
    )
    seen: str = "nearest"  # as ProGAN, on which the published detectors are trained
    unseen: Sequence[str] = ("transposed4", "transposed3", "bilinear", "pixelshuffle")
    steps: int = 200

    def __post_init__(self) -> None:
        if self.size % 4 or self.size < 16:
            raise ValueError(f"size is {self.size}; it must be a multiple of 4, at least 16")
        tree.require_counts(self.counts)
        names = self.generators
        if len(set(names)) < len(names) or not set(names) <= set(UPSAMPLERS):
            raise ValueError(
                f"generators must be different ones of {', '.join(UPSAMPLERS)}: {names}"
            )

    @property
    def generators(self) -> tuple[str, ...]:
        """The seen generator, then the unseen ones."""
        return (self.seen, *self.unseen)

    @property
    def crop(self) -> int:
        """Side of what is reconstructed; its border is cut off: padding would give fakes away."""
        return self.size + 2 * MARGIN

    def photographs(self) -> Split:
        """Reads the photographs.

        Raises:
            ValueError: the folder of photographs cannot be used.
        """
        if self.photos is None:
            return embedded()
        return from_folder(Path(self.photos), self.seed, smallest=max(PATCH, self.crop))

    def plain(self) -> dict[str, Any]:
        """The settings as JSON holds them; the user's photographs by the digests of their bytes."""
        photos = self.photos and sorted(digest(file) for file in image_files(Path(self.photos)))
        return asdict(self) | {
            "counts": dict(self.counts),
            "unseen": list(self.unseen),
            "photos": photos,
        }

    def stream(self, *purpose: str) -> np.random.Generator:
        """Random numbers of their own for each purpose: one more generator changes no other."""
        return tree.stream(self.seed, *purpose)


def cached(root: Path, **settings: Any) -> Path:
    """The data set of these settings, built below `root` unless it is there.

    Args:
        root: holds one folder for each choice of `settings` (and bytes of the user's photographs).
        settings: those of `Settings`.
    """
    chosen = Settings(**settings)
    folder = tree.named(root, "autogan", RECIPE, chosen.plain())
    return folder if tree.complete(folder) else build(folder, chosen)


def build(folder: Path, settings: Settings) -> Path:
    """Writes the data set as a tree of PNG files in the style of ForenSynths.

    `train/<seen>/{0_real,1_fake}/NNNN.png`, `val/<seen>/...`, `test/<generator>/...` for every
    generator, and `manifest.json`. Generators learn from the photographs of the training split
    only. Files of one name in 0_real and 1_fake are counterparts: the fake is the reconstruction of
    that very crop, and both are quantised and written alike. The folder appears when it is
    complete, never before; of two processes that race, the later one discards its own.

    Args:
        folder: to be written.
        settings: what the images depend on.

    Returns:
        `folder`.
    """
    split = settings.photographs()
    probe = patches(split["val"], 50, settings.crop, settings.stream("probe"))
    errors = {}
    with tree.drafted(folder) as draft:
        for name in settings.generators:
            parts = SPLITS if name == settings.seen else ("test",)
            weights = int(settings.stream("weights", name).integers(2**31))
            model = train(name, split["train"], weights, settings.steps)
            for part in parts:
                rng = settings.stream(part, name)
                crops = patches(split[part], settings.counts[part], settings.crop, rng)
                tree.write(_inner(crops), draft / part / name / "0_real")
                tree.write(_inner(reconstruct(model, crops)), draft / part / name / "1_fake")
            difference = _inner(reconstruct(model, probe)).astype(float) - _inner(probe)
            errors[name] = round(float(np.abs(difference).mean()) / 255, 4)
        # Errors are of values in [0, 1].
        tree.describe(draft, settings.plain(), split, l1_error_on_val_patches=errors)
    return folder


def _inner(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return crops[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
