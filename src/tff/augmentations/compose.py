"""Transforms whose random draws are independent of each other."""

from __future__ import annotations

import random

import albumentations as A
import numpy as np


class Pipeline(A.Compose):  # type: ignore[misc]  # albumentations has no types
    """`albumentations.Compose` with independent draws of its transforms.

    albumentations 2.0.8 gives each transform of a `Compose` its own generator with the same seed.
    Seeded for each image, all transforms then see the same first number: with p = 0.5 an image is
    blurred, compressed and flipped, or none of these. Here all transforms draw from one generator
    in turn. A pipeline of a single transform draws as `Compose` does.
    """

    def set_random_seed(self, seed: int | None) -> None:
        generator = np.random.default_rng(seed)
        self.set_random_state(generator, random.Random(seed))
        # The generator of the pipeline itself, which it draws from before the transforms do.
        self.seed, self.py_random = seed, random.Random(seed)
