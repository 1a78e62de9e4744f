"""Low frequencies: everything coarser than a cut-off is taken away, but for the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tff.ablations.options import above_zero
from tff.ablations.spectrum import FINEST, filtered


@dataclass(frozen=True)
class Highpass:
    """Frequencies up to the cut-off become 0; the others and each channel's mean stay.

    Without its mean an image could not be shown: half of its values would be below 0. What still
    leaves [0, 1] is cut off.

    Args:
        cutoff: cycles per pixel, above 0, at most 0.7071 (a checkerboard of single pixels).

    Raises:
        ValueError: the cut-off is outside of this range.
    """

    cutoff: float = 0.1
    cue: ClassVar[str] = "low frequencies"

    def __post_init__(self) -> None:
        above_zero("cutoff", self.cutoff, FINEST)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same without low frequencies."""
        kept = filtered(image, lambda radius: (radius > self.cutoff) | (radius == 0))
        return kept.clamp(0, 1)
