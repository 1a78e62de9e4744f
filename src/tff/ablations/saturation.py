"""The saturation: colors are mixed with their luma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tff.ablations.luma import luma
from tff.ablations.options import between


@dataclass(frozen=True)
class Saturation:
    """Saturation times 1 - strength; luma and hue of every pixel stay.

    Args:
        strength: 0 leaves the image as it is, 1 is `Grayscale` without its rounding to 8 bits.

    Raises:
        ValueError: the strength is not between 0 and 1.
    """

    strength: float = 0.75
    cue: ClassVar[str] = "saturation"

    def __post_init__(self) -> None:
        between("strength", self.strength, 0, 1)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same, paler."""
        return image.lerp(luma(image).expand_as(image), self.strength).clamp(0, 1)
