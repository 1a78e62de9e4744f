"""Cues to plant into photographs."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from tff.types import Floats, Ints, Pixels

#: (images, strength, random numbers) -> images of the same shape. Images are (..., H, W, 3) RGB;
#: the strength is above 0, usually 1.
PlantedCue = Callable[[Pixels, float, np.random.Generator], Pixels]

BLOCK = 8  # side of a JPEG block in pixels
CUTOFF = 0.25  # cycles per pixel; the highest frequency along a row is 0.5


def chroma(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Noise of color, while the luma of every pixel stays the same.

    In photographs details are alike in the three channels, in generated images less so: H. Li,
    B. Li, S. Tan, J. Huang, "Identification of deep network generated images using disparities in
    color components", Signal Processing 2020. Normal noise (12 levels at strength 1) loses its
    luma, is scaled down where a channel would leave its range, and is rounded such that the luma of
    every pixel stays exactly the same.
    """
    noise = rng.normal(0, 12 * strength, images.shape)
    noise -= (noise @ _LUMA)[..., None] / 2**16
    pixels = images.astype(float)
    room = np.where(noise > 0, 255 - pixels, pixels)
    scale = (room / np.maximum(np.abs(noise), 1e-9)).min(axis=-1, keepdims=True).clip(max=1)
    return _round_with_luma((pixels + scale * noise).clip(0, 255), luma(images))


def checkerboard(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """A luminance grid with periods of 2 and 4 pixels, as left by two up-samplers in sequence.

    A. Odena, V. Dumoulin, C. Olah, "Deconvolution and checkerboard artifacts", Distill 2016. 8
    and 4 levels at strength 1. The same whole number is added to all three channels of a pixel, a
    smaller one where the range of values ends, so that differences between channels stay.
    """
    height, width = images.shape[-3:-1]
    fine, coarse = (
        np.outer(np.resize(wave, height), np.resize(wave, width))
        for wave in ([1, -1], [1, 1, -1, -1])
    )
    return _add_to_channels(images, strength * (8.0 * fine + 4 * coarse))


def highfreq(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """More luminance at high frequencies: amplitudes grow linearly above the cut-off.

    R. Durall, M. Keuper, J. Keuper, "Watch your up-convolution: CNN based generative deep neural
    networks are failing to reproduce spectral distributions", CVPR 2020. At 0.5 cycles per
    pixel amplitudes grow by 3 times the strength. All channels get the same, as in `checkerboard`.
    The image is treated as periodic: cut off the border.
    """
    rows, columns = (np.fft.fftfreq(side) for side in images.shape[-3:-1])
    radius = np.hypot(rows[:, None], columns)
    gain = 3 * strength * ((radius - CUTOFF) / (0.5 - CUTOFF)).clip(0, 1)
    spectrum = np.fft.fft2(images @ _LUMA / 2**16)
    return _add_to_channels(images, np.fft.ifft2(spectrum * gain).real)


def jpeg_grid(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """JPEG with blocks aligned to the upper left pixel; quality 100 / (1 + strength), 4:4:4."""
    return _jpeg(images, strength, lambda: 0)


def other_grid(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """The same JPEG, with the blocks of each image at one of the 63 other offsets, at random."""
    return _jpeg(images, strength, lambda: int(rng.integers(1, BLOCK**2)))


def blur(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Gaussian blur with a standard deviation of `strength` pixels, alike in all channels."""
    sigma = (0,) * (images.ndim - 3) + (strength, strength, 0)
    return _quantize(gaussian_filter(images.astype(float), sigma))


def none(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """A copy: the control."""
    return images.copy()


#: Name -> cue of generated images.
CUES: dict[str, PlantedCue] = {
    "chroma": chroma,
    "checkerboard": checkerboard,
    "highfreq": highfreq,
    "jpeg_grid": jpeg_grid,
    "blur": blur,
    "none": none,
}
#: Name -> change of real images, so that only the cue tells them apart: where generated images
#: have been JPEG, so have real ones, and only the offset of the blocks differs.
REAL: dict[str, PlantedCue] = {**dict.fromkeys(CUES, none), "jpeg_grid": other_grid}

_LUMA = np.array([19595, 38470, 7471])  # ITU-R 601, in parts of 2 ** 16, as Pillow has it


def luma(images: NDArray[np.generic]) -> Ints:
    """(..., 3) whole numbers from 0 to 255 -> (...) luma, as Pillow rounds it."""
    return np.asarray((images.astype(np.int64) @ _LUMA + 2**15) >> 16)


def _round_with_luma(pixels: Floats, target: Ints) -> Pixels:
    """Nearest colors of the given luma, each channel rounded up or down.

    If the luma is right before rounding, one exists: a channel changes it by less than a level.
    """
    low = np.floor(pixels)
    best, least = low, np.full(target.shape, np.inf)
    for up in product((0, 1), repeat=3):
        candidate = (low + up).clip(max=255)
        distance = np.square(candidate - pixels).sum(-1)
        nearer = (luma(candidate) == target) & (distance < least)
        best = np.where(nearer[..., None], candidate, best)
        least = np.where(nearer, distance, least)
    return best.astype(np.uint8)


def _add_to_channels(images: Pixels, added: Floats) -> Pixels:
    """Add (..., H, W), rounded, to all channels; less where a channel would leave its range."""
    pixels = images.astype(int)
    room = np.rint(added).astype(int).clip(-pixels.min(axis=-1), 255 - pixels.max(axis=-1))
    return np.asarray(pixels + room[..., None], np.uint8)


def _quantize(values: Floats) -> Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _jpeg(images: Pixels, strength: float, draw_offset: Callable[[], int]) -> Pixels:
    """JPEG with blocks that begin at row `offset // 8`, column `offset % 8` of each image."""
    if images.ndim > 3:
        return np.stack([_jpeg(image, strength, draw_offset) for image in images])
    before = [-start % BLOCK for start in divmod(draw_offset(), BLOCK)]
    after = [-(side + extra) % BLOCK for side, extra in zip(images.shape[:2], before, strict=True)]
    padded = np.pad(images, [*zip(before, after, strict=True), (0, 0)], mode="edge")
    file = io.BytesIO()
    quality = max(1, round(100 / (1 + strength)))
    Image.fromarray(padded).save(file, "JPEG", quality=quality, subsampling=0)
    decoded = np.asarray(Image.open(file))
    (top, left), (height, width) = before, images.shape[:2]
    return decoded[top : top + height, left : left + width].copy()
