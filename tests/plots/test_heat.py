"""Pictures of relevance maps."""

from __future__ import annotations

import numpy as np
import pytest

from tff.plots.image_grids import (
    colorize,
    colorize_signed,
    normalize,
    overlay,
    shrink,
    shrink_image,
)

RANDOM = np.random.default_rng(0)


def test_brightness_has_the_99th_percentile_as_white_in_any_unit():
    heat = RANDOM.normal(size=(50, 40))
    light = normalize(heat)
    assert (light[heat <= 0] == 0).all()
    white = np.quantile(heat.clip(min=0), 0.99)
    np.testing.assert_allclose(light, np.clip(heat / white, 0, 1))
    np.testing.assert_allclose(normalize(1e-12 * heat), light)


def test_a_single_pixel_is_seen_unless_it_is_blurred_away():
    heat = np.zeros((30, 30))
    heat[3, 4] = 1e-6
    assert np.argwhere(normalize(heat)).tolist() == [[3, 4]]
    assert normalize(heat).max() == 1
    assert not normalize(heat, blur=3).any()


@pytest.mark.parametrize(
    "picture", [colorize, lambda light: overlay(np.zeros((4, 4, 3), np.uint8), light)]
)
def test_nothing_is_black_and_more_is_brighter(picture):
    assert picture(np.zeros((4, 4))).max() < 5
    ladder = picture(np.tile(np.linspace(0, 1, 4), (4, 1)))[0].astype(int).sum(1)
    assert (np.diff(ladder) > 0).all()


def test_the_image_is_seen_where_there_is_no_relevance():
    image = RANDOM.integers(0, 256, (8, 8, 3), np.uint8)
    over = overlay(image, np.zeros((8, 8)))
    assert (over == over[..., :1]).all()
    gray = image @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(over[..., 0], 0.6 * gray, atol=1)


def test_signs_have_their_colors():
    red, white, blue = colorize_signed(np.array([[1.0, 0.0, -1.0]]))[0].astype(int)
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert white.min() > 240
    assert (colorize_signed(np.zeros((2, 2))) > 240).all()


def test_large_pictures_shrink_by_means_and_small_ones_stay():
    values = RANDOM.random((40, 60))
    assert shrink(values, 60) is values
    np.testing.assert_allclose(
        shrink(values, 30), values.reshape(20, 2, 30, 2).mean((1, 3)), atol=1e-12
    )
    assert shrink_image(np.zeros((1, 900, 3), np.uint8), 30).shape == (1, 30, 3)
