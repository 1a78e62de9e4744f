"""Sharpness: a Gaussian blur of all three channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tff.ablations.options import above_zero
from tff.ablations.spectrum import blurred


@dataclass(frozen=True)
class Blur:
    """Gaussian blur, mirrored at the borders, alike in all channels.

    A frequency f (cycles per pixel) keeps exp(-2 (pi sigma f)^2) of its amplitude, so nothing
    rings.

    Args:
        sigma: standard deviation in pixels, above 0, at most 100.

    Raises:
        ValueError: sigma is outside of this range.
    """

    sigma: float = 2.0
    cue: ClassVar[str] = "sharpness"

    def __post_init__(self) -> None:
        above_zero("sigma", self.sigma, 100)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same, blurred."""
        return blurred(image, self.sigma)
