"""Random grayscale."""

from __future__ import annotations

from typing import Annotated, Any

import albumentations as A
import cv2
import numpy as np

from tff.options import checked, number
from tff.types import Pixels

#: Pillow's luma: (19595 R + 38470 G + 7471 B + 32768) >> 16. Each sum is a whole number below
#: 2^24, which float32 holds exactly.
_LUMA = np.array([[19595, 38470, 7471, 32768]], np.float64)


class Grayscale(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """ITU-R 601 luma on all three channels, bit for bit as Pillow rounds it.

    Chandrasegaran et al. (ECCV 2022) train color-robust detectors with p = 0.5.
    """

    @checked("Grayscale")
    def __init__(self, p: Annotated[float, number(0, 1)] = 0.5) -> None:
        super().__init__(p=p)

    def apply(self, img: Pixels, **_: Any) -> Pixels:
        luma = cv2.transform(img.astype(np.float32), _LUMA) * np.float32(2.0**-16)
        return np.asarray(cv2.cvtColor(luma.astype(np.uint8), cv2.COLOR_GRAY2RGB), np.uint8)
