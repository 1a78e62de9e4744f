"""The embedded data: nothing to download, made on first use."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tff.data.counterfeits import cached
from tff.data.datamodule import Data
from tff.data.images import Transform, index


class AutoGAN(Data):
    """Photographs and their counterfeits by small CNN generators, made on first use and kept.

    Zhang, Karaman and Chang, "Detecting and simulating artifacts in GAN fake images", WIFS 2019.

    Args:
        cache: folder in which the images are kept, one folder for each choice of settings.
        photos: folder of the user's own photographs; None: those that come with the dependencies.
        size: side of the square images, in pixels, all of which is used.
        steps: training steps of each generator.
    """

    def __init__(
        self,
        cache: str,
        photos: str | None = None,
        steps: int = 200,
        augmentation: dict[str, Transform] | None = None,
        size: int = 64,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(augmentation, size, None, batch_size, workers, seed)
        self.cache, self.photos = Path(cache), Path(photos).expanduser() if photos else None
        self.steps = steps

    def prepare_data(self) -> None:
        """Train the generators and write the images, unless that was done before."""
        self.folder()

    def folder(self) -> Path:
        """Where the images are."""
        return cached(
            self.cache, photos=self.photos, seed=self.seed, size=self.size, steps=self.steps
        )

    def manifest(self, split: str) -> pd.DataFrame:
        """The rows of a set."""
        return index(self.folder() / split)
