"""High frequencies: everything finer than a cut-off is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tff.ablations.options import above_zero
from tff.ablations.spectrum import FINEST, filtered


@dataclass(frozen=True)
class Lowpass:
    """Frequencies above the cut-off become 0, the others stay as they are.

    The cut is sharp, so edges ring; `Blur` is the filter that does not. Where ringing leaves
    [0, 1] it is cut off, which brings back a little of the high frequencies there.

    Args:
        cutoff: cycles per pixel, above 0, at most 0.7071 (a checkerboard of single pixels); the
            finest stripes have 0.5.

    Raises:
        ValueError: the cut-off is outside of this range.
    """

    cutoff: float = 0.25
    cue: ClassVar[str] = "high frequencies"

    def __post_init__(self) -> None:
        above_zero("cutoff", self.cutoff, FINEST)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same without high frequencies."""
        return filtered(image, lambda radius: radius <= self.cutoff).clamp(0, 1)
