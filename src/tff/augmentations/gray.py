"""Random grayscale: the augmentation of color-robust detectors."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Grayscale(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """Replace all three channels by the luma of ITU-R 601, as Pillow rounds it.

    Chandrasegaran et al. (ECCV 2022) train color-robust detectors with p = 0.5.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p=p)

    def apply(self, img: NDArray[np.uint8], **_: Any) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> the same without color."""
        return np.repeat(np.asarray(Image.fromarray(img).convert("L"))[..., None], 3, axis=2)
