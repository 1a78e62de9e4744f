from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from tff.augmentations.jpeg import JPEG

IMAGE = np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8)


def by_cv2(image: np.ndarray, quality: int) -> np.ndarray:
    code = cv2.imencode(".jpg", image[..., ::-1], [int(cv2.IMWRITE_JPEG_QUALITY), quality])[1]
    return cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1]


def by_pil(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, format="jpeg", quality=quality)
    return np.asarray(Image.open(io.BytesIO(file.getvalue())))


@pytest.mark.parametrize(("encoder", "direct"), [("cv2", by_cv2), ("pil", by_pil)])
def test_compression_equals_the_encoder_called_directly(encoder, direct, pictures, rng):
    for quality in (1, 30, 65, 100, *rng.integers(30, 101, 4).tolist()):
        for name, image in pictures.items():
            case = f"{name}, quality {quality}"
            expected = direct(image, quality)
            found = JPEG((quality, quality), (encoder,), exact=True, p=1)(image=image)["image"]
            assert found.dtype == np.uint8
            assert np.array_equal(found, expected), case
            fast = JPEG((quality, quality), (encoder,), p=1)(image=image)["image"]
            assert fast.shape == image.shape
            assert np.abs(fast.astype(int) - expected).max() <= 1, case


def test_fast_and_exact_mode_agree_at_every_quality(pictures):
    image = pictures["odd"]
    for quality in range(30, 101):
        fast = JPEG((quality, quality), ("pil",), p=1)(image=image)["image"]
        far = np.abs(fast.astype(int) - by_pil(image, quality)).max()
        assert far <= 1, f"quality {quality}"


def test_red_stays_red():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    for encoder in ("cv2", "pil"):
        for exact in (False, True):
            found = JPEG((95, 95), (encoder,), exact=exact, p=1)(image=red)["image"]
            assert np.abs(found.astype(int) - red).max() < 6


def test_both_ends_of_quality_and_both_encoders_occur():
    jpeg = JPEG((30, 33))
    draws = []
    for _ in range(2):
        jpeg.set_random_seed(0)
        draws.append([tuple(jpeg.get_params().values()) for _ in range(300)])
    assert draws[0] == draws[1]
    assert set(draws[0]) == {(q, e) for q in (30, 31, 32, 33) for e in ("cv2", "pil")}


@pytest.mark.parametrize("p", [0, 0.1, 1])
def test_probability_and_seed_are_respected(p):
    jpeg = JPEG(p=p)
    runs = []
    for _ in range(2):
        jpeg.set_random_seed(0)
        runs.append([jpeg(image=IMAGE)["image"].tobytes() for _ in range(500)])
    assert runs[0] == runs[1]
    changed = np.mean([image != IMAGE.tobytes() for image in runs[0]])
    assert abs(changed - p) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoders": ("cv2", "webp")}, r"encoders=\['cv2', 'webp'\]: .* names from cv2, pil"),
        ({"encoders": "jpeg"}, "encoders=jpeg: expected"),
        ({"encoders": ()}, "different names from cv2, pil"),
        ({"quality": (0, 50)}, r"quality=\[0, 50\]: .* each a whole number from 1 to 100"),
        ({"quality": (30, 101)}, "each a whole number from 1 to 100"),
        ({"quality": (90, 30)}, r"\[low, high\] with low <= high"),
        ({"quality": (30.5, 90)}, "each a whole number"),
        ({"quality": (30,)}, r"\[low, high\]"),
        ({"p": 50}, "p=50: expected a number from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=rf"JPEG\..*{message}"):
        JPEG(**options)


def test_single_encoder_may_be_a_string():
    assert JPEG(encoders="pil").encoders == ("pil",)
