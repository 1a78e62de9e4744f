from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from tff.augmentations.jpeg import JPEG

NOISE = np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8)
SMOOTH = cv2.GaussianBlur(NOISE, (0, 0), 3)


def by_cv2(image: np.ndarray, quality: int) -> np.ndarray:
    code = cv2.imencode(".jpg", image[..., ::-1], [int(cv2.IMWRITE_JPEG_QUALITY), quality])[1]
    return cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1]


def by_pil(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="jpeg", quality=quality)
    return np.asarray(Image.open(io.BytesIO(file.getvalue())))


@pytest.mark.parametrize("image", [NOISE, SMOOTH], ids=["noise", "smooth"])
@pytest.mark.parametrize("quality", [1, 30, 75, 100])
@pytest.mark.parametrize(("encoder", "direct"), [("cv2", by_cv2), ("pil", by_pil)])
def test_round_trip(encoder, direct, quality, image):
    found = JPEG((quality, quality), (encoder,), p=1)(image=image)["image"]
    assert found.dtype == np.uint8
    assert np.array_equal(found, direct(image, quality))


def test_colors_keep_their_places():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    for encoder in ("cv2", "pil"):
        found = JPEG((95, 95), (encoder,), p=1)(image=red)["image"]
        assert np.abs(found.astype(int) - red).max() < 6


def test_draws_cover_both_ends_and_both_encoders():
    jpeg = JPEG((30, 33))
    draws = []
    for _ in range(2):
        jpeg.set_random_seed(0)
        draws.append([tuple(jpeg.get_params().values()) for _ in range(300)])
    assert draws[0] == draws[1]
    assert set(draws[0]) == {(q, e) for q in (30, 31, 32, 33) for e in ("cv2", "pil")}


def test_unknown_encoder():
    with pytest.raises(ValueError, match="webp"):
        JPEG(encoders=("cv2", "webp"))
