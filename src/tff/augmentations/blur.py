"""Gaussian blur as the published detectors were trained with it."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter


class GaussianBlur(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """Blur with sigma drawn uniformly from a range (Wang et al., CVPR 2020).

    SciPy's filter on 8-bit values, which rounds down after each axis: other libraries' differ in
    most pixels, and the detectors learned this one.

    Args:
        sigma: range in pixels; equal ends fix it.
    """

    def __init__(self, sigma: tuple[float, float] = (0.0, 3.0), p: float = 0.5) -> None:
        super().__init__(p=p)
        self.sigma = tuple(sigma)

    def get_params(self) -> dict[str, Any]:
        """Draw sigma."""
        return {"sigma": self.py_random.uniform(*self.sigma)}

    def apply(self, img: NDArray[np.uint8], sigma: float, **_: Any) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> the same, blurred."""
        blurred: NDArray[np.uint8] = gaussian_filter(img, sigma=(sigma, sigma, 0))
        return blurred
