"""The place of color: chroma no longer fits the structure that it lay on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tff.ablations.luma import apart, together


@dataclass(frozen=True)
class ChromaSwap:
    """Each pixel gets the chroma of the pixel opposite to the centre, and keeps its luma.

    The chroma of the whole image is turned by 180 degrees, so it keeps its colors, details and
    spectrum. That of another image would do the same, but then an image's result would depend on
    the batch that it stands in. Turned, not mirrored: faces and many scenes are nearly the same in
    a mirror. Where the turned chroma does not fit the luma, it is scaled down (see `luma`).
    """

    cue: ClassVar[str] = "color placement"

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same with turned chroma."""
        brightness, chroma = apart(image)
        return together(brightness, chroma.flip(-2, -1))
