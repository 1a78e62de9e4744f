"""Luma and chroma of ITU-R 601: images apart and together again, never outside of [0, 1].

Y = 0.299 R + 0.587 G + 0.114 B, Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402, as in JPEG (JFIF), but
not rounded. Hue is the angle of (Cb, Cr), saturation its length.
"""

from __future__ import annotations

import torch
from torch import Tensor

RED, GREEN, BLUE = 0.299, 0.587, 0.114


def luma(image: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 1, H, W)."""
    red, green, blue = image.unbind(1)
    return (RED * red + GREEN * green + BLUE * blue).clamp(0, 1).unsqueeze(1)


def apart(image: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) in [0, 1] -> luma (B, 1, H, W) and chroma (B, 2, H, W): Cb, Cr."""
    brightness = luma(image)
    blue, red = image[:, 2:] - brightness, image[:, :1] - brightness
    return brightness, torch.cat([blue / (2 - 2 * BLUE), red / (2 - 2 * RED)], dim=1)


def together(brightness: Tensor, chroma: Tensor) -> Tensor:
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
