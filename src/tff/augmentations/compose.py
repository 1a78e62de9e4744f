"""Transforms with independent random draws, and checks of their options."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import albumentations as A
import numpy as np


def checked_range(
    name: str, ends: Sequence[float], least: float, most: float = math.inf
) -> tuple[float, float]:
    """The two ends of a range that numbers are drawn from.

    Args:
        name: of the option, for messages.
        ends: lower and upper end; equal ends fix the number.
        least: no end may be less.
        most: no end may be more.

    Raises:
        ValueError: not two finite numbers in order, between `least` and `most`.
    """
    values = list(ends) if isinstance(ends, Sequence) else [ends]
    if len(values) != 2 or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        raise ValueError(f"{name}={values}: expected two numbers, such as [1, 2]")
    low, high = values
    if low > high:
        raise ValueError(f"{name}=[{low}, {high}]: reversed; write [{high}, {low}]")
    if low < least or high > most:
        limits = f"at least {least}" if math.isinf(most) else f"between {least} and {most}"
        raise ValueError(f"{name}=[{low}, {high}]: both must be {limits}")
    return low, high


def checked_probability(name: str, p: float) -> float:
    """A probability.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"{name}={p}: a probability is between 0 and 1")
    return p


class Pipeline(A.Compose):  # type: ignore[misc]  # albumentations has no types
    """`albumentations.Compose` whose transforms are independent of each other.

    albumentations 2.0.8 gives each transform of a `Compose` its own generator with the same seed.
    Seeded for each image, they all see the same first number: with p = 0.5 an image would be
    blurred, compressed and flipped, or none of it. Here they draw from one generator in turn. A
    pipeline of a single transform draws as `Compose` does.
    """

    def set_random_seed(self, seed: int | None) -> None:
        """Start the draws of all transforms anew."""
        generator = np.random.default_rng(seed)
        self.set_random_state(generator, random.Random(seed))
        # The pipeline's own, which it draws from before the transforms do.
        self.seed, self.py_random = seed, random.Random(seed)
