"""Gaussian blur as the published detectors were trained with it."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from tff.augmentations.gaussian import gaussian, radius, rounding
from tff.augmentations.options import checked_probability, checked_range

_ONE = np.ones(1)


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
