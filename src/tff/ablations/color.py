"""Color cues: chroma, hue and saturation removed or exchanged.

Y = 0.299 R + 0.587 G + 0.114 B, Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402, as in JPEG (JFIF), but
not rounded. Hue is the angle of (Cb, Cr), saturation its length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from tff.ablations.options import between, one_of

RED, GREEN, BLUE = 0.299, 0.587, 0.114


def luma(image: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 1, H, W)."""
    red, green, blue = image.unbind(1)
    return (RED * red + GREEN * green + BLUE * blue).clamp(0, 1).unsqueeze(1)


def split_luma_chroma(image: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) in [0, 1] -> luma (B, 1, H, W) and chroma (B, 2, H, W): Cb, Cr."""
    brightness = luma(image)
    blue, red = image[:, 2:] - brightness, image[:, :1] - brightness
    return brightness, torch.cat([blue / (2 - 2 * BLUE), red / (2 - 2 * RED)], dim=1)


def merge_luma_chroma(brightness: Tensor, chroma: Tensor) -> Tensor:
    """The image (B, 3, H, W) of this luma and this chroma.

    Where the two fit no color within [0, 1], the chroma of that pixel is scaled down until they
    do: luma and hue stay. Cutting off each channel would change both.

    Args:
        brightness: (B, 1, H, W) in [0, 1].
        chroma: (B, 2, H, W), Cb and Cr.
    """
    blue, red = (2 - 2 * BLUE) * chroma[:, :1], (2 - 2 * RED) * chroma[:, 1:]
    away = torch.cat([red, -(RED * red + BLUE * blue) / GREEN, blue], dim=1)
    room = torch.where(away > 0, 1 - brightness, brightness)
    # Gray has room without end; the least number only keeps 0 / 0 away.
    scale = (room / away.abs().clamp_min(1e-12)).amin(dim=1, keepdim=True).clamp_max(1)
    return (brightness + scale * away).clamp(0, 1)


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


Mode = Literal["one", "turn"]


@dataclass(frozen=True)
class Hue:
    """Hue is the angle of (Cb, Cr); luma and saturation of every pixel stay.

    Where a color of the new hue, the old luma and saturation does not exist, the saturation is
    scaled down (see `luma`).

    Args:
        angle: degrees, -360 to 360. Red lies at 109, yellow at 171, green at 232, cyan at 289,
            blue at 351, magenta at 52.
        mode: `one` gives every pixel the hue `angle`; `turn` adds `angle` to every hue, so that
            differences of hue stay.

    Raises:
        ValueError: an option is none of these.
    """

    angle: float = 120.0
    mode: Mode = "one"
    cue: ClassVar[str] = "hue"

    def __post_init__(self) -> None:
        between("angle", self.angle, -360, 360)
        one_of("mode", self.mode, get_args(Mode))

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same without its hues."""
        brightness, chroma = split_luma_chroma(image)
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        blue, red = chroma.unbind(1)
        if self.mode == "one":
            blue, red = torch.hypot(blue, red), torch.zeros_like(red)
        turned = torch.stack([cos * blue - sin * red, sin * blue + cos * red], dim=1)
        return merge_luma_chroma(brightness, turned)


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
        brightness, chroma = split_luma_chroma(image)
        return merge_luma_chroma(brightness, chroma.flip(-2, -1))
