"""Cues that `Planted` puts into photographs."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from tff.types import Pixels

#: (images, strength, random numbers) -> images of the same shape. Images are (..., H, W, 3) RGB;
#: strength is above 0 and 1 is the usual one.
PlantedCue = Callable[[Pixels, float, np.random.Generator], Pixels]

BLOCK = 8  # pixels, side of the blocks of JPEG
CUTOFF = 0.25  # cycles per pixel; 0.5 is the finest grating along a row


def chroma(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Colors vary from pixel to pixel, independently of the details that all channels share.

    In photographs the details of the three channels are alike, in generated images less so: H. Li,
    B. Li, S. Tan, J. Huang, "Identification of deep network generated images using disparities in
    color components", Signal Processing 2020. Normal noise (12 levels at strength 1) loses its part
    in the luma, is scaled down where a channel would leave its range, and is rounded such that the
    luma of every pixel stays the very same.
    """
    noise = rng.normal(0, 12 * strength, images.shape)
    noise -= (noise @ _LUMA)[..., None] / 2**16
    pixels = images.astype(float)
    room = np.where(noise > 0, 255 - pixels, pixels)
    scale = (room / np.maximum(np.abs(noise), 1e-9)).min(axis=-1, keepdims=True).clip(max=1)
    return _rounded((pixels + scale * noise).clip(0, 255), luma(images))


def checkerboard(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """A luminance grid of periods 2 and 4 pixels, as two up-samplers in sequence leave it.

    A. Odena, V. Dumoulin, C. Olah, "Deconvolution and checkerboard artifacts", Distill 2016. 8
    and 4 levels at strength 1. All three channels of a pixel get the same whole number, a smaller
    one where the range of values ends, so that no difference between channels is touched.
    """
    height, width = images.shape[-3:-1]
    fine, coarse = (
        np.outer(np.resize(wave, height), np.resize(wave, width))
        for wave in ([1, -1], [1, 1, -1, -1])
    )
    return _lighter(images, strength * (8.0 * fine + 4 * coarse))


def highfreq(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """More luminance in the tail of the spectrum: amplitudes grow from the cut-off on.

    R. Durall, M. Keuper, J. Keuper, "Watch your up-convolution: CNN based generative deep neural
    networks are failing to reproduce spectral distributions", CVPR 2020. At the end of a row of
    frequencies (0.5 cycles per pixel) amplitudes grow by 3 times the strength. Channels get the
    same, as in `checkerboard`. The image is taken for periodic: cut off a border that must not
    show it.
    """
    rows, columns = (np.fft.fftfreq(side) for side in images.shape[-3:-1])
    radius = np.hypot(rows[:, None], columns)
    gain = 3 * strength * ((radius - CUTOFF) / (0.5 - CUTOFF)).clip(0, 1)
    spectrum = np.fft.fft2(images @ _LUMA / 2**16)
    return _lighter(images, np.fft.ifft2(spectrum * gain).real)


def jpeg_grid(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """JPEG whose blocks begin at the upper left pixel; quality 100 / (1 + strength), 4:4:4."""
    return _jpeg(images, strength, lambda: 0)


def other_grid(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """The same JPEG, but each image's blocks begin at a random other place: one of 63."""
    return _jpeg(images, strength, lambda: int(rng.integers(1, BLOCK**2)))


def blur(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """A slight Gaussian blur, of `strength` pixels standard deviation, alike in all channels."""
    sigma = (0,) * (images.ndim - 3) + (strength, strength, 0)
    return _quantised(gaussian_filter(images.astype(float), sigma))


def none(images: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """The control: a copy."""
    return images.copy()


#: Name -> what makes a counterfeit of a photograph.
CUES: dict[str, PlantedCue] = {
    "chroma": chroma,
    "checkerboard": checkerboard,
    "highfreq": highfreq,
    "jpeg_grid": jpeg_grid,
    "blur": blur,
    "none": none,
}
#: Name -> what the photographs go through, so that nothing but the cue tells them apart: where
#: counterfeits were JPEG, so were photographs, and only the place of the blocks differs.
REAL: dict[str, PlantedCue] = {**dict.fromkeys(CUES, none), "jpeg_grid": other_grid}

_LUMA = np.array([19595, 38470, 7471])  # ITU-R 601, in parts of 2 ** 16, as Pillow has it


def luma(images: NDArray[np.generic]) -> NDArray[np.int64]:
    """(..., 3) whole numbers from 0 to 255 -> (...) luma, as Pillow rounds it."""
    return np.asarray((images.astype(np.int64) @ _LUMA + 2**15) >> 16)


def _rounded(pixels: NDArray[np.float64], wanted: NDArray[np.int64]) -> Pixels:
    """The nearest colors of the wanted luma, each channel rounded up or down.

    If the luma is right before, there is one: a channel moves it by less than a level is wide.
    """
    low = np.floor(pixels)
    best, least = low, np.full(wanted.shape, np.inf)
    for up in product((0, 1), repeat=3):
        candidate = (low + up).clip(max=255)
        distance = np.square(candidate - pixels).sum(-1)
        nearer = (luma(candidate) == wanted) & (distance < least)
        best = np.where(nearer[..., None], candidate, best)
        least = np.where(nearer, distance, least)
    return best.astype(np.uint8)


def _lighter(images: Pixels, added: NDArray[np.float64]) -> Pixels:
    """Add (..., H, W) to all channels, rounded, and less where a channel would leave its range."""
    pixels = images.astype(int)
    room = np.rint(added).astype(int).clip(-pixels.min(axis=-1), 255 - pixels.max(axis=-1))
    return np.asarray(pixels + room[..., None], np.uint8)


def _quantised(values: NDArray[np.float64]) -> Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _jpeg(images: Pixels, strength: float, place: Callable[[], int]) -> Pixels:
    """Each image through a JPEG whose blocks begin at row `place // 8`, column `place % 8`."""
    if images.ndim > 3:
        return np.stack([_jpeg(image, strength, place) for image in images])
    before = [-start % BLOCK for start in divmod(place(), BLOCK)]
    after = [-(side + extra) % BLOCK for side, extra in zip(images.shape[:2], before, strict=True)]
    padded = np.pad(images, [*zip(before, after, strict=True), (0, 0)], mode="edge")
    file = io.BytesIO()
    quality = max(1, round(100 / (1 + strength)))
    Image.fromarray(padded).save(file, "JPEG", quality=quality, subsampling=0)
    decoded = np.asarray(Image.open(file))
    (top, left), (height, width) = before, images.shape[:2]
    return decoded[top : top + height, left : left + width].copy()
