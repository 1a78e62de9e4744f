"""Middle frequencies: what is finer than one cut-off and coarser than another is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tff.ablations.options import above_zero
from tff.ablations.spectrum import FINEST, filtered


@dataclass(frozen=True)
class Bandstop:
    """Frequencies above `low` and up to `high` become 0, the others stay as they are.

    With the defaults, `Highpass`, this and `Lowpass` divide all frequencies between them. What
    leaves [0, 1] is cut off.

    Args:
        low: cycles per pixel, above 0; it is itself kept.
        high: cycles per pixel, above `low`, at most 0.7071; it is itself taken away.

    Raises:
        ValueError: the two are outside of this range or reversed.
    """

    low: float = 0.1
    high: float = 0.25
    cue: ClassVar[str] = "middle frequencies"

    def __post_init__(self) -> None:
        above_zero("low", self.low, FINEST)
        above_zero("high", self.high, FINEST)
        if self.low >= self.high:
            raise ValueError(f"ablation.low={self.low}: must be below ablation.high={self.high}")

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same without middle frequencies."""
        kept = filtered(image, lambda radius: (radius <= self.low) | (radius > self.high))
        return kept.clamp(0, 1)
