"""Filters that multiply frequencies of an image, and see no edge where it ends.

The Fourier transform takes an image for periodic, so that opposite borders meet in an edge that is
not there. Mirrored at its borders to twice its height and width, it has none. The transform of a
mirrored image is the cosine transform (DCT-II) of the image itself: N. Ahmed, T. Natarajan, K. R.
Rao, "Discrete cosine transform", IEEE Trans. Computers 1974. As products of matrices it takes a
quarter of the time of an FFT of the mirrored image at 224 pixels, and a quarter of the memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Cycles per pixel of the finest checkerboard: 0.5 along rows and along columns.
FINEST = math.sqrt(0.5)


def filtered(image: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
    """Each frequency times a gain that depends on its radius only.

    Exact to float32's rounding, unless torch was told to round factors of matrix products to less
    (`torch.set_float32_matmul_precision`).

    Args:
        image: (B, C, H, W), floats.
        gain: radii in cycles per pixel, from 0 to `FINEST` -> gains, alike in shape.

    Returns:
        (B, C, H, W), not cut off to [0, 1].
    """
    height, width = image.shape[-2:]
    rows, columns = cosines(height).to(image), cosines(width).to(image)
    gains = gain(radii(height, width)).to(image)
    spectrum = rows @ (image.contiguous() @ columns.T)
    return rows.T @ (spectrum.mul_(gains) @ columns)


def cosines(size: int) -> Tensor:
    """(size, size) orthonormal DCT-II in float64; row k has k / (2 size) cycles per pixel."""
    steps = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (steps + 0.5) * steps[:, None]) * math.sqrt(2 / size)
    matrix[0] = math.sqrt(1 / size)
    return matrix


def radii(height: int, width: int) -> Tensor:
    """(height, width) cycles per pixel of the frequencies of the cosine transform, in float64.

    On the CPU, whatever the image is on: a frequency right at a cut-off falls on the same side on
    every device.
    """
    rows, columns = (
        torch.arange(side, dtype=torch.float64) / (2 * side) for side in (height, width)
    )
    return torch.hypot(rows[:, None], columns)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of `sigma` pixels standard deviation, (B, C, H, W) in [0, 1] -> the same.

    The gain is that of the continuous Gaussian, which nothing truncates.
    """
    return filtered(image, lambda f: torch.exp(-2 * (math.pi * sigma * f) ** 2)).clamp(0, 1)
