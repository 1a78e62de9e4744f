from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision.transforms import functional as F

from tff.data.dataset import Images, View

IMAGE = np.random.default_rng(0).integers(0, 256, (31, 44, 3), dtype=np.uint8)


def test_no_crop_returns_the_full_image():
    view = View()
    assert (view.kind, view.side, view.count) == ("none", None, 1)
    assert view.apply(IMAGE, 0, 0, "x") is IMAGE
    assert view.sizes(np.array([[31, 44]])).tolist() == [[31, 44]]


@pytest.mark.parametrize("size", [(31, 44), (44, 31), (30, 30), (256, 300), (1, 7)])
@pytest.mark.parametrize("resize", [16, 30, 61])
def test_resize_is_that_of_torchvision_on_pillow_images(size, resize, rng):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = np.asarray(F.resize(Image.fromarray(image), resize))
    view = View(resize=resize)
    assert np.array_equal(view.apply(image, 0, 0, "x"), expected)
    assert view.sizes(np.array([size])).tolist() == [list(expected.shape[:2])]


def test_centre():
    for word in ("center", "centre"):
        found = View(f"{word}20").apply(IMAGE, 0, 0, "x")
        assert np.array_equal(found, IMAGE[5:25, 12:32])


def test_random_crop_is_fixed_for_each_image():
    view = View("random8")
    places = set()
    for seed in range(200):
        found = view.apply(IMAGE, seed, 0, "x")
        assert np.array_equal(found, view.apply(IMAGE, seed, 0, "x"))
        (place,) = [
            (t, left)
            for t in range(24)
            for left in range(37)
            if np.array_equal(IMAGE[t : t + 8, left : left + 8], found)
        ]
        places.add(place)
    assert len(places) > 150
    assert max(t for t, _ in places) > 20
    assert max(left for _, left in places) > 32


def test_five():
    view = View("five10")
    found = [view.apply(IMAGE, 0, number, "x") for number in range(view.count)]
    ten, theirs = (10, 10), F.five_crop(Image.fromarray(IMAGE), (10, 10))
    assert [f.shape[:2] for f in found] == [ten] * 5
    for mine, other in zip(found[:4], theirs[:4], strict=True):
        assert np.array_equal(mine, np.asarray(other))
    assert np.array_equal(found[4], IMAGE[10:20, 17:27])


def test_resize_then_crop():
    found = View("center24", 24).apply(IMAGE, 0, 0, "x")
    small = np.asarray(F.resize(Image.fromarray(IMAGE), 24))
    assert np.array_equal(found, small[:, 5:29])


@pytest.mark.parametrize("crop", ["224", "middle224", "center", "center-3", "five 8", "none8"])
def test_unknown_crop(crop):
    with pytest.raises(ValueError, match=r"data\.crop=.*center224"):
        View(crop)


def test_too_small():
    with pytest.raises(ValueError, match=r"x\.png: 31x44 pixels, smaller than data\.crop=center32"):
        View("center32").apply(IMAGE, 0, 0, "x.png")
    with pytest.raises(ValueError, match=r"data\.resize=8: less than data\.crop=center9"):
        View("center9", 8)
    with pytest.raises(ValueError, match=r"data\.resize=0"):
        View(resize=0)


@pytest.mark.parametrize(("crop", "resize"), [("center32", None), ("five32", None), ("random9", 8)])
def test_small_images_are_counted_before_the_first(crop, resize):
    if resize:  # the view itself refuses it
        with pytest.raises(ValueError, match="less than"):
            View(crop, resize)
        return
    table = pd.DataFrame({"path": ["a", "b", "c"], "height": [32, 31, 9], "width": [32, 400, 9]})
    message = rf"^b: 31x400 pixels; 2 of 3 images are smaller than data\.crop={crop}\. .*resize=32"
    with pytest.raises(ValueError, match=message):
        Images(table, View(crop)).sizes()
    assert (Images(table, View(crop, 32)).sizes() == 32).all()
    assert Images(table, View(crop), transform=dict).sizes().tolist() == [[32, 32]] * 3
