"""Detail of the luminance: the luma is blurred, the chroma stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tff.ablations.luma import apart, together
from tff.ablations.options import above_zero
from tff.ablations.spectrum import blurred


@dataclass(frozen=True)
class LuminanceBlur:
    """Gaussian blur of the luma alone; Cb and Cr of every pixel stay.

    Where the chroma does not fit the new luma, it is scaled down (see `luma`).

    Args:
        sigma: standard deviation in pixels, above 0, at most 100.

    Raises:
        ValueError: sigma is outside of this range.
    """

    sigma: float = 2.0
    cue: ClassVar[str] = "luminance detail"

    def __post_init__(self) -> None:
        above_zero("sigma", self.sigma, 100)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same with blurred luma."""
        brightness, chroma = apart(image)
        return together(blurred(brightness, self.sigma), chroma)
