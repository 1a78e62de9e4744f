from __future__ import annotations

import albumentations as A
import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F

from tff.augmentations.resize import Resize


def original(image, side):
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(F.resize(picture, side, F.InterpolationMode.BILINEAR))


def test_resize_equals_torchvision(pictures, rng):
    sides = [1, 2, 29, *rng.integers(1, 120, 5).tolist()]
    for name, image in pictures.items():
        for side in sides:
            case = f"{name} {image.shape}, side {side}"
            found = Resize(side)(image=image)["image"]
            assert found.dtype == np.uint8
            assert np.array_equal(found, original(image, side)), case


@pytest.mark.parametrize("size", [(480, 640), (333, 251), (256, 700), (255, 255), (1000, 257)])
def test_resize_equals_torchvision_at_common_sizes(size, rng):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for picture in (image, (image > 127).astype(np.uint8) * 255):
        found = Resize(256)(image=picture)["image"]
        assert min(found.shape[:2]) == 256
        assert np.array_equal(found, original(picture, 256))


def test_image_of_the_right_size_is_unchanged(pictures):
    for image in pictures.values():
        for side in (None, min(image.shape[:2])):
            assert np.array_equal(Resize(side)(image=image)["image"], image)


def test_resize_draws_no_random_number(rng):
    image = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
    plain = [A.RandomCrop(32, 32), A.HorizontalFlip(p=0.5)]
    for side in (None, 64):
        pipelines = A.Compose(plain), A.Compose([Resize(side), *plain])
        for seed in range(20):
            found = []
            for pipeline in pipelines:
                pipeline.set_random_seed(seed)
                found.append(pipeline(image=image)["image"])
            assert np.array_equal(*found), f"seed {seed}"


@pytest.mark.parametrize("side", [0, -256, 25.6, "256", True])
def test_wrong_side_is_refused(side):
    with pytest.raises(ValueError, match=rf"Resize\.side={side}: .* at least 1 \(pixels\), or"):
        Resize(side)


def test_a_strip_does_not_become_a_huge_image():
    with pytest.raises(ValueError, match=r"^aug\.resize=224 would make more than 100000000"):
        Resize(224).apply(np.zeros((1, 500_000, 3), np.uint8))
