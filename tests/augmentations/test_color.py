from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tff.augmentations.color import Grayscale

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def luma(image):
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))


def test_grayscale_equals_pillow_on_every_image(pictures):
    for name, image in pictures.items():
        found = Grayscale(p=1)(image=image)["image"]
        assert found.shape == image.shape
        assert found.dtype == np.uint8
        for c in range(3):
            same = np.array_equal(found[..., c], luma(image))
            assert same, name


def test_grayscale_equals_pillow_for_every_color():
    green, blue = np.indices((256, 256), dtype=np.uint8)
    for red in range(0, 256, 16):
        some = [np.stack([np.full_like(green, red + r), green, blue], 2) for r in range(16)]
        image = np.concatenate(some)
        assert np.array_equal(Grayscale(p=1)(image=image)["image"][..., 0], luma(image))


def test_probability_is_the_fraction_of_gray_images():
    half = Grayscale()
    half.set_random_seed(0)
    kept = [np.array_equal(half(image=IMAGE)["image"], IMAGE) for _ in range(300)]
    assert 0.4 < np.mean(kept) < 0.6
    half.set_random_seed(0)
    assert kept == [np.array_equal(half(image=IMAGE)["image"], IMAGE) for _ in range(300)]


def test_wrong_probability_is_refused():
    with pytest.raises(ValueError, match=r"Grayscale\.p=2: expected a number from 0 to 1"):
        Grayscale(p=2)
