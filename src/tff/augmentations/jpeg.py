"""JPEG compression as the published detectors were trained with it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated, Any

import albumentations as A
import cv2
import numpy as np
from PIL import Image

from tff.options import any_of, checked, interval, number, one_of, some_of, whole
from tff.types import Pixels

#: Allowed values of the option `encoders`.
ENCODERS = any_of([some_of(["cv2", "pil"]), one_of(["cv2", "pil"])])


class JPEG(A.ImageOnlyTransform):  # type: ignore[misc]  # albumentations has no types
    """JPEG compression with random quality and encoder (Wang et al., CVPR 2020).

    albumentations' own compression encodes RGB as if it were BGR, which gives another image.

    Args:
        quality: interval of whole numbers from 1 to 100, both ends included.
        encoders: `cv2`, `pil` or both.
        exact: use the chosen encoder; else OpenCV for both, which is faster and gives the same
            pixels (with the versions tried, also the same bytes).
        p: probability.
    """

    @checked("JPEG")
    def __init__(
        self,
        quality: Annotated[tuple[int, int], interval(whole(1, 100))] = (30, 100),
        encoders: Annotated[Sequence[str] | str, ENCODERS] = ("cv2", "pil"),
        exact: bool = False,
        p: Annotated[float, number(0, 1)] = 0.5,
    ) -> None:
        encoders = (encoders,) if isinstance(encoders, str) else tuple(encoders)
        super().__init__(p=p)
        self.quality, self.encoders, self.exact = tuple(quality), encoders, exact

    def get_params(self) -> dict[str, Any]:
        return {
            "quality": self.py_random.randint(*self.quality),
            "encoder": self.py_random.choice(self.encoders),
        }

    def apply(self, img: Pixels, quality: int, encoder: str, **_: Any) -> Pixels:
        if encoder == "cv2" or not self.exact:
            bgr = cv2.cvtColor(img, cv2.COLOR_RGB2BGR)
            _done, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
            return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB), np.uint8)
        with io.BytesIO() as file:
            Image.fromarray(img).save(file, "JPEG", quality=quality)
            return np.array(Image.open(file).convert("RGB"), np.uint8)
