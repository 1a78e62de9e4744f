from __future__ import annotations

import numpy as np
from PIL import Image

from tff.augmentations.gray import Grayscale

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_luma_of_pillow():
    found = Grayscale(p=1)(image=IMAGE)["image"]
    luma = np.asarray(Image.fromarray(IMAGE).convert("L"))
    assert found.shape == IMAGE.shape
    assert found.dtype == np.uint8
    assert all(np.array_equal(found[..., c], luma) for c in range(3))


def test_probability():
    half = Grayscale()
    half.set_random_seed(0)
    kept = [np.array_equal(half(image=IMAGE)["image"], IMAGE) for _ in range(300)]
    assert 0.4 < np.mean(kept) < 0.6
    half.set_random_seed(0)
    assert kept == [np.array_equal(half(image=IMAGE)["image"], IMAGE) for _ in range(300)]
