from __future__ import annotations

import albumentations as A
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tff.augmentations.blur import GaussianBlur

IMAGE = np.random.default_rng(0).integers(0, 256, (31, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0, 2.9])
def test_scipy_channel_by_channel(sigma):
    found = GaussianBlur((sigma, sigma), p=1)(image=IMAGE)["image"]
    assert found.dtype == np.uint8
    for c in range(3):
        assert np.array_equal(found[..., c], gaussian_filter(IMAGE[..., c], sigma))


def test_sigma_is_uniform_and_seeded():
    blur = GaussianBlur((0.5, 2.5))
    draws = []
    for _ in range(2):
        blur.set_random_seed(3)
        draws.append([blur.get_params()["sigma"] for _ in range(2000)])
    assert draws[0] == draws[1]
    counts, _ = np.histogram(draws[0], bins=4, range=(0.5, 2.5))
    assert counts.sum() == 2000
    assert counts.min() > 400


def test_seed_reproduces_a_pipeline():
    pipeline = A.Compose([GaussianBlur(p=0.5)])

    def run(seed: int) -> bytes:
        pipeline.set_random_seed(seed)
        return b"".join(pipeline(image=IMAGE)["image"].tobytes() for _ in range(4))

    assert run(1) == run(1)
    assert run(1) != run(2)
