"""Which part of an image is seen outside training, and at which size: never implied."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tff.data.decode import MOST_PIXELS

Pixels = NDArray[np.uint8]
_CROP = re.compile(r"(center|centre|random|five)(\d+)")


@dataclass(frozen=True)
class View:
    """Resize, then crop.

    Args:
        crop: `none` for whole images, or `center224`, `random224` (one place for each image, drawn
            with the seed) or `five224` (the corners and the centre; the mean logit counts).
        resize: length of the shorter side in pixels, bilinear and antialiased as by Pillow; None
            leaves sizes alone.

    Raises:
        ValueError: an unknown crop, or a resize below the side of the crop.
    """

    crop: str = "none"
    resize: int | None = None

    def __post_init__(self) -> None:
        if self.crop != "none" and not _CROP.fullmatch(self.crop):
            raise ValueError(
                f"data.crop={self.crop}: expected none, or center, random or five with the side in "
                "pixels, such as center224"
            )
        if self.resize is not None and self.resize < max(1, self.side or 0):
            raise ValueError(f"data.resize={self.resize}: less than data.crop={self.crop}")

    @property
    def kind(self) -> str:
        """What is cropped: none, center, random or five."""
        return self.crop.rstrip("0123456789").replace("centre", "center")

    @property
    def side(self) -> int | None:
        """Side of the crop in pixels."""
        match = _CROP.fullmatch(self.crop)
        return int(match[2]) if match else None

    @property
    def count(self) -> int:
        """Views of one image."""
        return 5 if self.kind == "five" else 1

    def sizes(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N, 2) heights and widths of images -> those of their views."""
        if self.side is not None:
            return np.full_like(sizes, self.side)
        return sizes if self.resize is None else np.array([self._resized(h, w) for h, w in sizes])

    def apply(self, image: Pixels, seed: int, number: int, name: str) -> Pixels:
        """One view of an image (H, W, 3).

        Args:
            seed: of a random crop.
            number: of the view, 0 to `count` - 1.
            name: of the image, for messages.

        Raises:
            ValueError: the image is smaller than the crop, or would be too large to be held: a
                strip of one pixel by millions fits in memory until it is resized.
        """
        height, width = image.shape[:2]
        if self.resize is not None and min(height, width) != self.resize:
            was = f"{height}x{width}"
            height, width = self._resized(height, width)
            if height * width > MOST_PIXELS:
                raise ValueError(
                    f"{name}: {was} pixels would become {height}x{width} by "
                    f"data.resize={self.resize}, more than {MOST_PIXELS}; remove it or leave "
                    "sizes alone with data.resize=null"
                )
            small = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            image = np.asarray(small)
        if self.side is None:
            return image
        if min(height, width) < self.side:
            raise ValueError(
                f"{name}: {height}x{width} pixels, smaller than data.crop={self.crop}; "
                f"data.resize={self.side} would enlarge it"
            )
        top, left = self._corner(height - self.side, width - self.side, seed, number)
        return image[top : top + self.side, left : left + self.side]

    def _corner(self, down: int, right: int, seed: int, number: int) -> tuple[int, int]:
        if self.kind == "random":
            rng = np.random.default_rng(seed)
            return int(rng.integers(down + 1)), int(rng.integers(right + 1))
        corners = [(0, 0), (0, right), (down, 0), (down, right)]
        return corners[number] if number < self.count - 1 else (down // 2, right // 2)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        # As torchvision's Resize rounds the longer side, by which detectors were trained.
        assert self.resize is not None
        if height < width:
            return self.resize, int(self.resize * width / height)
        return int(self.resize * height / width), self.resize


WHOLE = View()
