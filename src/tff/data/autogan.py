"""The embedded data: nothing to download, made on first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tff.data.counterfeits import cached
from tff.data.datamodule import Data
from tff.data.manifest import Manifest


class AutoGAN(Data):
    """Photographs and their counterfeits by small CNN generators, made on first use and kept.

    Zhang, Karaman and Chang, "Detecting and simulating artifacts in GAN fake images", WIFS 2019.

    Args:
        cache: folder in which the images are kept, one folder for each choice of settings.
        photos: folder of the user's own photographs; None: those that come with the dependencies.
        size: side of the square images, in pixels, all of which is used.
        steps: training steps of each generator.
        options: see `Data`.
    """

    def __init__(
        self,
        cache: str,
        photos: str | None = None,
        steps: int = 200,
        size: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(cache=cache, size=size, **options)
        self.folders, self.photos = Path(cache), Path(photos).expanduser() if photos else None
        self.steps = steps

    def prepare_data(self) -> None:
        """Train the generators and write the images, unless that was done before."""
        self.folder()

    def folder(self) -> Path:
        """Where the images are."""
        return cached(
            self.folders, photos=self.photos, seed=self.seed, size=self.size, steps=self.steps
        )

    def listed(self, split: str) -> Manifest:
        """All images of a set."""
        return self._list(self.folder() / split)
