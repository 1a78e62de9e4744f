"""Resize to a common shorter side, as the published detectors were trained with it."""

from __future__ import annotations

from typing import Annotated, Any

import albumentations as A
import numpy as np
from PIL import Image

from tff.options import checked, whole
from tff.types import Pixels

_MOST_PIXELS = 100_000_000  # as of the images that are read


class Resize(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """Resize of the shorter side, bilinear and antialiased, by Pillow (Wang et al., CVPR 2020).

    OpenCV does not antialias, and torch's kernel for bytes, three times as fast, is two gray levels
    off in some pixels. It uses no random number, so a pipeline draws the same numbers with and
    without it.

    Args:
        side: length of the shorter side in pixels; None leaves images as they are.
    """

    @checked("Resize")
    def __init__(self, side: Annotated[int, whole(1, hint=" (pixels)")] | None = None) -> None:
        super().__init__(p=1)
        self.side = side

    def apply(self, img: Pixels, **_: Any) -> Pixels:
        """(H, W, 3) uint8 -> (h, w, 3) with min(h, w) the side."""
        height, width = img.shape[:2]
        short = min(height, width)
        if self.side is None or short == self.side:
            return img
        # As torchvision's Resize rounds the longer side.
        size = self.side * width // short, self.side * height // short
        if size[0] * size[1] > _MOST_PIXELS:  # a strip one pixel high and very wide
            raise ValueError(
                f"aug.resize={self.side} would make more than {_MOST_PIXELS} pixels of it"
            )
        return np.array(Image.fromarray(img).resize(size, Image.Resampling.BILINEAR))
