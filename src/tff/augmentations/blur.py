"""Gaussian blur as published, bit for bit or fast.

SciPy filters one axis after the other in float64 and rounds down after each. Filtering in float32
rounds down to the same integer unless the value lies next to one. The exact mode therefore filters
in float32, bounds the error, and recomputes only the uncertain pixels as SciPy does. In flat areas
all pixels are uncertain, but a table of 256 values gives the results there.
"""

from __future__ import annotations

from typing import Annotated, Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter, gaussian_filter1d

from tff.options import checked, interval, number
from tff.types import Floats, Ints, Pixels

_ONE = np.ones(1)
#: Shares of uncertain pixels above which it pays to look for flat areas, or to let SciPy filter the
#: entire axis.
_LOOK_FOR_FLAT, _LEAVE_TO_SCIPY = 1 / 32, 1 / 16


class GaussianBlur(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """Blur with sigma drawn uniformly from an interval (Wang et al., CVPR 2020).

    The detectors learned SciPy's filter on 8-bit values, which rounds down after each axis; other
    libraries differ in most pixels.

    Args:
        sigma: interval in pixels; equal ends fix it.
        exact: SciPy's result bit for bit; else within one gray level of it, and faster.
        p: probability.
    """

    @checked("GaussianBlur")
    def __init__(
        self,
        sigma: Annotated[tuple[float, float], interval(number(0))] = (0.0, 3.0),
        exact: bool = False,
        p: Annotated[float, number(0, 1)] = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.sigma, self.exact = tuple(sigma), exact

    def get_params(self) -> dict[str, Any]:
        return {"sigma": self.py_random.uniform(*self.sigma)}

    def apply(self, img: Pixels, sigma: float, **_: Any) -> Pixels:
        return blur_exactly(img, sigma) if self.exact else blur_closely(img, sigma)


def kernel_radius(sigma: float) -> int:
    """Pixels on each side of the center in SciPy's truncated kernel; 0 leaves the image as is."""
    return int(4 * sigma + 0.5)


def float32_error(radius: int) -> float:
    """Error bound of a weighted mean of `2 * radius + 1` 8-bit values in float32.

    For numbers up to 255 each rounding to 24 bits errs by 255 * 2^-24 at most. Weights and products
    are rounded once each (both in proportion), sums 2 * radius times in any order, and the result
    once when the bound is added and once when it is subtracted; two more are a margin.
    """
    return (2 * radius + 6) * 255 * 2.0**-24


def blur_closely(image: Pixels, sigma: float) -> Pixels:
    """(H, W, C) within one gray level of SciPy's filter, and equal nearly everywhere.

    Two float32 passes, each rounded down. Values so near to a whole number that float32 cannot
    decide are rounded up in the first pass and down in the second: after the first, a value is
    SciPy's or one more, so after the second it is at most one more or one less. Rounding the same
    way twice could shift a flat area by two.
    """
    radius = kernel_radius(sigma)
    if radius == 0 or image.size == 0:
        return image.copy()
    weights = cv2.getGaussianKernel(2 * radius + 1, sigma)
    error, border = float32_error(radius), cv2.BORDER_REFLECT
    above = cv2.sepFilter2D(image, cv2.CV_32F, _ONE, weights, delta=error, borderType=border)
    down = above.astype(np.uint8)
    below = cv2.sepFilter2D(down, cv2.CV_32F, weights, _ONE, delta=-error, borderType=border)
    return below.astype(np.uint8).reshape(image.shape)


def blur_exactly(image: Pixels, sigma: float) -> Pixels:
    """`scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0))`, bit for bit.

    Args:
        image: (H, W, C).
        sigma: in pixels, at least 0.
    """
    radius = kernel_radius(sigma)
    if radius == 0 or image.size == 0:
        return image.copy()
    if radius == 1:  # three weights, two of them small: too many pixels are uncertain
        return np.asarray(gaussian_filter(image, (sigma, sigma, 0)), np.uint8)
    # The impulse response is the weights, to the last bit, however SciPy computes them.
    impulse = np.zeros(2 * radius + 1)
    impulse[radius] = 1
    weights = np.asarray(gaussian_filter1d(impulse, sigma, mode="constant"))
    return _blur_axis(_blur_axis(image, weights, 0), weights, 1)


def _blur_axis(image: Pixels, weights: Floats, axis: int) -> Pixels:
    """Correlation with symmetric weights along one axis, mirrored borders, rounded down."""
    radius = len(weights) // 2
    error = float32_error(radius)
    x, y = (weights, _ONE) if axis else (_ONE, weights)
    above = cv2.sepFilter2D(image, cv2.CV_32F, x, y, delta=error, borderType=cv2.BORDER_REFLECT)
    above = above.reshape(image.shape)
    result: Pixels = above.astype(np.uint8)
    below = np.subtract(above, np.float32(2 * error), out=above)
    uncertain = below.astype(np.uint8) != result
    if np.count_nonzero(uncertain) > _LOOK_FOR_FLAT * uncertain.size:
        flat = _is_flat(image, radius, axis)
        known = cv2.LUT(image, _flat_table(weights)).reshape(image.shape)
        result = np.asarray(cv2.copyTo(known, flat.view(np.uint8), result), np.uint8)
        result = result.reshape(image.shape)
        uncertain &= ~flat
        if np.count_nonzero(uncertain) > _LEAVE_TO_SCIPY * uncertain.size:
            return np.asarray(correlate1d(image, weights, axis), np.uint8)
    positions = np.flatnonzero(uncertain)
    if positions.size:
        result.reshape(-1)[positions] = _blur_pixels(positions, image, weights, axis)
    return result


def _is_flat(image: Pixels, radius: int, axis: int) -> NDArray[np.bool_]:
    """Where a pixel equals all of its neighbors under the kernel."""
    window = np.ones((1, 2 * radius + 1) if axis else (2 * radius + 1, 1), np.uint8)
    low = cv2.erode(image, window, borderType=cv2.BORDER_REFLECT)
    high = cv2.dilate(image, window, borderType=cv2.BORDER_REFLECT)
    return np.asarray(low == high).reshape(image.shape)


def _flat_table(weights: Floats) -> Pixels:
    """(256,) SciPy's result in a flat area of each value."""
    radius = len(weights) // 2
    same = np.broadcast_to(np.arange(256.0), (radius + 1, 256))
    return _weighted_sum(same, same[1:], weights)


def _blur_pixels(positions: Ints, image: Pixels, weights: Floats, axis: int) -> Pixels:
    """SciPy's result at positions (N,) of the flattened image."""
    radius = len(weights) // 2
    sides = (0, 0, radius, radius) if axis else (radius, radius, 0, 0)
    padded = cv2.copyMakeBorder(image, *sides, borderType=cv2.BORDER_REFLECT)
    row, padded_row = image[0].size, padded[0].size
    step = image.shape[2] if axis else padded_row
    rows, rest = np.divmod(positions, row)
    center = rows * padded_row + rest + radius * step
    offset = step * np.arange(radius, 0, -1)[:, None]
    values = padded.reshape(-1)
    left = np.concatenate([values[center][None], values[center - offset]]).astype(np.float64)
    return _weighted_sum(left, values[center + offset], weights)


def _weighted_sum(left: Floats, right: Floats | Pixels, weights: Floats) -> Pixels:
    """Weighted sum in SciPy's order: the center, then pairs from the farthest to the nearest.

    Args:
        left: (1 + radius, N) center and left neighbors, farthest first.
        right: (radius, N) their counterparts.
        weights: (2 * radius + 1,).
    """
    radius = len(weights) // 2
    terms = left.copy()
    terms[1:] += right
    terms *= np.concatenate([weights[radius : radius + 1], weights[:radius]])[:, None]
    # `cumsum` adds strictly one after the other, `sum` does not.
    return np.asarray(np.cumsum(terms, axis=0)[-1].astype(np.uint8))
