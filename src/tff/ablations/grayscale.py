"""The color cue: everything but the luma is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)  # equal cues share their pass over the images
class Grayscale:
    """Luma of ITU-R 601 on all three channels, rounded to 8 bits exactly as Pillow does it."""

    cue: ClassVar[str] = "color"

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same without color.

        Values are taken as multiples of 1/255, which decoded images are.
        """
        red, green, blue = (image * 255).round().int().unbind(1)
        luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
        return (luma.to(image.dtype) / 255).unsqueeze(1).expand_as(image)
