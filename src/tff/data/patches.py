"""Random square pieces of photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tff.data.photographs import Photograph


def patches(
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
