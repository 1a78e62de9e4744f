"""JPEG compression as the published detectors were trained with it."""

from __future__ import annotations

import io
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tff.augmentations.compose import checked_probability, checked_range


class JPEG(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """Compress and decompress, quality and encoder drawn at random (Wang et al., CVPR 2020).

    albumentations' own compression encodes RGB as if it were BGR, which is another image.

    Args:
        quality: range of whole numbers, both ends included.
        encoders: any of `cv2` and `pil`.
        exact: each encoder itself; else OpenCV for both, which gives the same pixels (with the
            versions tried, also the same bytes) in less time.

    Raises:
        ValueError: an unknown encoder or none, a quality that is reversed, no whole number or
            outside of 1 to 100, or p is no probability.
    """

    def __init__(
        self,
        quality: tuple[int, int] = (30, 100),
        encoders: tuple[str, ...] = ("cv2", "pil"),
        exact: bool = False,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=checked_probability("JPEG: p", p))
        if isinstance(encoders, str):
            encoders = (encoders,)
        if unknown := set(encoders) - {"cv2", "pil"}:
            raise ValueError(f"JPEG: encoders {sorted(unknown)}: unknown; there are cv2 and pil")
        if not encoders:
            raise ValueError("JPEG: encoders=[]: name cv2, pil or both")
        ends = checked_range("JPEG: quality", quality, 1, 100)
        self.quality = tuple(int(end) for end in ends)
        if self.quality != ends:
            raise ValueError(f"JPEG: quality={list(ends)}: expected whole numbers")
        self.encoders, self.exact = tuple(encoders), exact

    def get_params(self) -> dict[str, Any]:
        """Draw quality and encoder."""
        return {
            "quality": self.py_random.randint(*self.quality),
            "encoder": self.py_random.choice(self.encoders),
        }

    def apply(
        self, img: NDArray[np.uint8], quality: int, encoder: str, **_: Any
    ) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> the same after compression."""
        if encoder == "cv2" or not self.exact:
            bgr = cv2.cvtColor(img, cv2.COLOR_RGB2BGR)
            _done, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
            return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB), np.uint8)
        with io.BytesIO() as file:
            Image.fromarray(img).save(file, "JPEG", quality=quality)
            return np.array(Image.open(file).convert("RGB"), np.uint8)
