from __future__ import annotations

import albumentations as A
import numpy as np
import pytest

from tff.augmentations.blur import GaussianBlur
from tff.augmentations.color import Grayscale
from tff.augmentations.compose import Pipeline
from tff.augmentations.jpeg import JPEG
from tff.augmentations.resize import Resize

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def recipe(p, exact=False):
    return Pipeline([
        Resize(None),
        GaussianBlur(exact=exact, p=p),
        JPEG(exact=exact, p=p),
        A.RandomCrop(16, 16),
        A.HorizontalFlip(p=0.5),
        Grayscale(p=0.5),
    ])  # fmt: skip


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_transforms_are_applied_independently(p):
    pipeline = recipe(p)
    drawn, of_both = [], []
    for seed in range(4000):  # as `Images` does it: seeded for each image
        pipeline.set_random_seed(seed)
        pipeline(image=IMAGE)
        _, blur, jpeg, crop, flip, gray = (t.get_applied_params() for t in pipeline.transforms)
        drawn.append([bool(blur), bool(jpeg), bool(flip), bool(gray), crop["crop_coords"][1] > 2])
        if blur and jpeg:
            of_both.append([blur["sigma"], jpeg["quality"], jpeg["encoder"] == "pil"])
    shares = np.mean(drawn, axis=0)
    assert np.abs(shares[:4] - [p, p, 0.5, 0.5]).max() < 0.04
    # Five standard errors, and for the pairs of which there are fewer, four.
    assert np.abs(np.corrcoef(drawn, rowvar=False) - np.eye(5)).max() < 5 / 4000**0.5
    assert abs(len(of_both) / 4000 - p * p) < 0.04
    if p == 0.5:
        assert np.abs(np.corrcoef(of_both, rowvar=False) - np.eye(3)).max() < 0.13


@pytest.mark.parametrize("exact", [False, True])
def test_image_depends_on_the_seed_only(exact):
    first, second = recipe(0.5, exact), recipe(0.5, exact)
    for seed in range(30):
        for pipeline in (first, second):
            pipeline.set_random_seed(seed)
        found = first(image=IMAGE)["image"]
        assert np.array_equal(found, second(image=IMAGE)["image"])
        second(image=IMAGE)
    first.set_random_seed(1)
    some = [first(image=IMAGE)["image"].tobytes() for _ in range(20)]
    assert len(set(some)) > 15


def test_exact_and_fast_mode_draw_the_same_numbers():
    pipelines = recipe(0.5, False), recipe(0.5, True)
    for seed in range(40):
        applied = []
        for pipeline in pipelines:
            pipeline.set_random_seed(seed)
            pipeline(image=IMAGE)
            applied.append([
                {k: v for k, v in t.get_applied_params().items() if k != "shape"}
                for t in pipeline.transforms
            ])  # fmt: skip
        assert applied[0] == applied[1]


def test_single_transform_draws_as_in_albumentations():
    ours, theirs = (kind([A.D4(p=1)]) for kind in (Pipeline, A.Compose))
    for seed in range(40):
        for pipeline in (ours, theirs):
            pipeline.set_random_seed(seed)
        for _ in range(2):
            assert np.array_equal(ours(image=IMAGE)["image"], theirs(image=IMAGE)["image"])
