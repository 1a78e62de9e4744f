"""Color cues: chroma, hue and saturation removed or swapped.

Y = 0.299 R + 0.587 G + 0.114 B, Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402, as in JPEG (JFIF) but
without rounding. Hue is the angle of (Cb, Cr), saturation its length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from tff.options import checked, number

RED, GREEN, BLUE = 0.299, 0.587, 0.114


def luma(image: Tensor) -> Tensor:
    """Luma (B, 1, H, W) of an image (B, 3, H, W) in [0, 1]."""
    red, green, blue = image.unbind(1)
    return (RED * red + GREEN * green + BLUE * blue).clamp(0, 1).unsqueeze(1)


def split_luma_chroma(image: Tensor) -> tuple[Tensor, Tensor]:
    """Luma (B, 1, H, W) and chroma (B, 2, H, W), Cb and Cr, of an image (B, 3, H, W) in [0, 1]."""
    brightness = luma(image)
    blue, red = image[:, 2:] - brightness, image[:, :1] - brightness
    return brightness, torch.cat([blue / (2 - 2 * BLUE), red / (2 - 2 * RED)], dim=1)


def merge_luma_chroma(brightness: Tensor, chroma: Tensor) -> Tensor:
    """Image (B, 3, H, W) with this luma and chroma.

    Where the two fit no color within [0, 1], the chroma of that pixel is scaled down until they
    do, which keeps luma and hue. Clipping each channel would change both.

    Args:
        brightness: (B, 1, H, W) in [0, 1].
        chroma: (B, 2, H, W), Cb and Cr.
    """
    blue, red = (2 - 2 * BLUE) * chroma[:, :1], (2 - 2 * RED) * chroma[:, 1:]
    offset = torch.cat([red, -(RED * red + BLUE * blue) / GREEN, blue], dim=1)
    room = torch.where(offset > 0, 1 - brightness, brightness)
    # Gray may be scaled without limit; the tiny minimum only avoids 0 / 0.
    scale = (room / offset.abs().clamp_min(1e-12)).amin(dim=1, keepdim=True).clamp_max(1)
    return (brightness + scale * offset).clamp(0, 1)


@dataclass(frozen=True)
class Grayscale:
    """ITU-R 601 luma on all three channels, rounded to 8 bits exactly as Pillow rounds it."""

    cue: ClassVar[str] = "color"

    def __call__(self, image: Tensor) -> Tensor:
        # Decoded images hold multiples of 1/255.
        red, green, blue = (image * 255).round().int().unbind(1)
        luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
        return (luma.to(image.dtype) / 255).unsqueeze(1).expand_as(image)


@dataclass(frozen=True)
@checked("ablation")
class Saturation:
    """Saturation multiplied by 1 - strength; luma and hue of every pixel stay.

    Args:
        strength: from 0, which leaves the image as it is, to 1, which is `Grayscale` without
            rounding to 8 bits.
    """

    strength: Annotated[float, number(0, 1)] = 0.75
    cue: ClassVar[str] = "saturation"

    def __call__(self, image: Tensor) -> Tensor:
        return image.lerp(luma(image).expand_as(image), self.strength).clamp(0, 1)


@dataclass(frozen=True)
@checked("ablation")
class Hue:
    """One hue for all pixels, or all hues rotated; luma and saturation of every pixel stay.

    Where the new hue allows no color of this luma and saturation, the saturation is scaled down
    (see `merge_luma_chroma`).

    Args:
        angle: degrees. Red lies at 109, yellow at 171, green at 232, cyan at 289, blue at 351,
            magenta at 52.
        mode: `one` gives every pixel the hue `angle`; `turn` adds `angle` to every hue, which keeps
            differences of hue.
    """

    angle: Annotated[float, number(-360, 360)] = 120.0
    mode: Literal["one", "turn"] = "one"
    cue: ClassVar[str] = "hue"

    def __call__(self, image: Tensor) -> Tensor:
        brightness, chroma = split_luma_chroma(image)
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        blue, red = chroma.unbind(1)
        if self.mode == "one":
            blue, red = torch.hypot(blue, red), torch.zeros_like(red)
        rotated = torch.stack([cos * blue - sin * red, sin * blue + cos * red], dim=1)
        return merge_luma_chroma(brightness, rotated)


@dataclass(frozen=True)
class ChromaSwap:
    """Chroma rotated by 180 degrees about the center of the image; luma stays.

    The image keeps its chromas, their details and their spectrum, but not their places. The chroma
    of another image would do the same, but then the result would depend on the batch. Rotated, not
    mirrored: faces and many scenes are nearly symmetric. Where the rotated chroma does not fit the
    luma, it is scaled down (see `merge_luma_chroma`).
    """

    cue: ClassVar[str] = "color placement"

    def __call__(self, image: Tensor) -> Tensor:
        brightness, chroma = split_luma_chroma(image)
        return merge_luma_chroma(brightness, chroma.flip(-2, -1))
