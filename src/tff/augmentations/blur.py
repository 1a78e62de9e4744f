"""Gaussian blur as published, bit for bit or fast.

SciPy filters one axis after the other in float64 and rounds down after each. Whether float32 rounds
down to the same number is certain unless the value lies next to a whole one. So: filter in float32,
bound its error, and do only the pixels in doubt as SciPy does. In areas of one color all are in
doubt, but there a table of 256 values knows the answer.
"""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter, gaussian_filter1d

from tff.augmentations.compose import checked_probability, checked_range
from tff.types import Pixels

_ONE = np.ones(1)
#: Shares of pixels in doubt above which it pays to look for areas of one color, or to leave the
#: whole axis to SciPy.
_SOME, _MANY = 1 / 32, 1 / 16


def radius(sigma: float) -> int:
    """Pixels on each side that count, as SciPy truncates; none means that nothing is blurred."""
    return int(4 * sigma + 0.5)


def rounding(reach: int) -> float:
    """Bound of the error of a weighted mean of `2 * reach + 1` 8-bit values in float32.

    In numbers up to 255 each rounding to 24 bits errs by 255 * 2^-24 at most. There is one of the
    weights, one of the products (both by their share), 2 * reach of sums in whatever order, and one
    each when the bound is added and taken away; two are to spare.
    """
    return (2 * reach + 6) * 255 * 2.0**-24


def gaussian(image: Pixels, sigma: float) -> Pixels:
    """`scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0))`, bit for bit.

    Args:
        image: (H, W, C).
        sigma: in pixels, at least 0.
    """
    reach = radius(sigma)
    if reach == 0 or image.size == 0:
        return image.copy()
    if reach == 1:  # three weights, of which two are small: too much is in doubt
        return np.asarray(gaussian_filter(image, (sigma, sigma, 0)), np.uint8)
    # The response to a single one is the weights, to the last bit, whatever version computes them.
    one = np.zeros(2 * reach + 1)
    one[reach] = 1
    weights = gaussian_filter1d(one, sigma, mode="constant")
    return _along(_along(image, np.asarray(weights), 0), np.asarray(weights), 1)


def _along(image: Pixels, weights: NDArray[np.float64], axis: int) -> Pixels:
    """One axis: correlation with symmetric weights, mirrored borders, rounded down."""
    reach = len(weights) // 2
    error = rounding(reach)
    x, y = (weights, _ONE) if axis else (_ONE, weights)
    above = cv2.sepFilter2D(image, cv2.CV_32F, x, y, delta=error, borderType=cv2.BORDER_REFLECT)
    above = above.reshape(image.shape)
    result: Pixels = above.astype(np.uint8)
    below = np.subtract(above, np.float32(2 * error), out=above)
    doubt = below.astype(np.uint8) != result
    if np.count_nonzero(doubt) > _SOME * doubt.size:
        plain = _plain(image, reach, axis)
        known = cv2.LUT(image, _of_plain(weights)).reshape(image.shape)
        result = np.asarray(cv2.copyTo(known, plain.view(np.uint8), result), np.uint8)
        result = result.reshape(image.shape)
        doubt &= ~plain
        if np.count_nonzero(doubt) > _MANY * doubt.size:
            return np.asarray(correlate1d(image, weights, axis), np.uint8)
    places = np.flatnonzero(doubt)
    if places.size:
        result.reshape(-1)[places] = _at(places, image, weights, axis)
    return result


def _plain(image: Pixels, reach: int, axis: int) -> NDArray[np.bool_]:
    """Where a pixel and all neighbours that count are equal."""
    window = np.ones((1, 2 * reach + 1) if axis else (2 * reach + 1, 1), np.uint8)
    low = cv2.erode(image, window, borderType=cv2.BORDER_REFLECT)
    high = cv2.dilate(image, window, borderType=cv2.BORDER_REFLECT)
    return np.asarray(low == high).reshape(image.shape)


def _of_plain(weights: NDArray[np.float64]) -> Pixels:
    """(256,) what SciPy makes of an area that is all 0, all 1, ..."""
    reach = len(weights) // 2
    same = np.broadcast_to(np.arange(256.0), (reach + 1, 256))
    return _sum(same, same[1:], weights)


def _at(
    places: NDArray[np.int64], image: Pixels, weights: NDArray[np.float64], axis: int
) -> Pixels:
    """What SciPy gives at places (N,) of the flattened image."""
    reach = len(weights) // 2
    sides = (0, 0, reach, reach) if axis else (reach, reach, 0, 0)
    wide = cv2.copyMakeBorder(image, *sides, borderType=cv2.BORDER_REFLECT)
    row, wide_row = image[0].size, wide[0].size
    step = image.shape[2] if axis else wide_row
    rows, rest = np.divmod(places, row)
    centre = rows * wide_row + rest + reach * step
    away = step * np.arange(reach, 0, -1)[:, None]
    values = wide.reshape(-1)
    left = np.concatenate([values[centre][None], values[centre - away]]).astype(np.float64)
    return _sum(left, values[centre + away], weights)


def _sum(
    left: NDArray[np.float64], right: NDArray[np.float64] | Pixels, weights: NDArray[np.float64]
) -> Pixels:
    """SciPy's order of summation: the centre, then pairs from the farthest to the nearest.

    Args:
        left: (1 + reach, N) centre and left neighbours, farthest first.
        right: (reach, N) their counterparts.
    """
    reach = len(weights) // 2
    terms = left.copy()
    terms[1:] += right
    terms *= np.concatenate([weights[reach : reach + 1], weights[:reach]])[:, None]
    # `cumsum` adds strictly one after the other, `sum` does not.
    return np.asarray(np.cumsum(terms, axis=0)[-1].astype(np.uint8))


class GaussianBlur(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """Blur with sigma drawn uniformly from a range (Wang et al., CVPR 2020).

    SciPy's filter on 8-bit values, which rounds down after each axis: other libraries' differ in
    most pixels, and the detectors learned this one.

    Args:
        sigma: range in pixels; equal ends fix it.
        exact: SciPy's result bit for bit; else within one grey level of it, and faster.

    Raises:
        ValueError: a range that is reversed or negative, or p is no probability.
    """

    def __init__(
        self, sigma: tuple[float, float] = (0.0, 3.0), exact: bool = False, p: float = 0.5
    ) -> None:
        super().__init__(p=checked_probability("GaussianBlur: p", p))
        self.sigma = checked_range("GaussianBlur: sigma", sigma, 0)
        self.exact = exact

    def get_params(self) -> dict[str, Any]:
        """Draw sigma."""
        return {"sigma": self.py_random.uniform(*self.sigma)}

    def apply(self, img: NDArray[np.uint8], sigma: float, **_: Any) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> the same, blurred."""
        return gaussian(img, sigma) if self.exact else close(img, sigma)


def close(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """(H, W, C) within one grey level of SciPy's filter, nearly everywhere equal.

    Two passes in float32, each rounded down. What float32 leaves open, values next to a whole
    number, the first pass rounds up and the second rounds down: after the first, a value is
    SciPy's or one more; so after the second it is at most one more and at most one less. (Twice
    the same way, and an area of one color could be off by two.)
    """
    reach = radius(sigma)
    if reach == 0 or image.size == 0:
        return image.copy()
    weights = cv2.getGaussianKernel(2 * reach + 1, sigma)
    error, border = rounding(reach), cv2.BORDER_REFLECT
    above = cv2.sepFilter2D(image, cv2.CV_32F, _ONE, weights, delta=error, borderType=border)
    down = above.astype(np.uint8)
    below = cv2.sepFilter2D(down, cv2.CV_32F, weights, _ONE, delta=-error, borderType=border)
    return below.astype(np.uint8).reshape(image.shape)
