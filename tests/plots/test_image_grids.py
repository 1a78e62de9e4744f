from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure

from tff.plots.image_grids import (
    Cutout,
    collage,
    colorize,
    colorize_signed,
    image_grid,
    normalize,
    overlay,
    shrink,
    shrink_image,
)

RANDOM = np.random.default_rng(0)
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def shown(figure: Figure) -> list[np.ndarray]:
    return [ax.images[0].get_array() for ax in figure.axes if ax.images]


def cutouts(names: Sequence[str]) -> list[Cutout]:
    boxes = (None, (0, 20, 0, 30), (1, 2, 1, 2), (4, 4, 0, 3))
    return [Cutout.cut(IMAGE, box, name) for box, name in zip(boxes, names, strict=False)]


CASES: dict[str, Callable[[list[str]], Figure]] = {
    "images, one": lambda _: image_grid({"a": [(IMAGE, "")]}),
    "images, unequal": lambda hard: image_grid({n: [(IMAGE, n)] * (i % 4)
                                                for i, n in enumerate(hard[:6])}),
    "collage": lambda hard: collage([(n, cutouts(hard)[: i % 5]) for i, n in enumerate(hard[:6])]),
}  # fmt: skip
EMPTY = {
    "images": lambda: image_grid({}),
    "images, empty row": lambda: image_grid({"a": []}),
    "collage": lambda: collage([]),
    "collage, empty row": lambda: collage([("a", [])]),
}


@pytest.mark.parametrize("case", CASES)
def test_renders(case, hard, svg, is_empty):
    figure = CASES[case](hard)
    assert not is_empty(figure)
    assert svg(figure)


@pytest.mark.parametrize("case", EMPTY)
def test_without_data_says_so(case, is_empty):
    assert is_empty(EMPTY[case]())


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


def test_rows_stand_in_their_order_not_in_that_of_their_text():
    titles = [f"{rank}. layer #{rank}" for rank in range(1, 13)]
    figure = collage([(title, [Cutout.cut(IMAGE, (0, 2, 0, 2), "x")]) for title in titles])
    texts = [text for text in figure.texts if "layer" in text.get_text()]
    assert [text.get_text() for text in texts] == titles
    heights = [text.get_position()[1] for text in texts]
    assert heights == sorted(heights, reverse=True)


def test_a_patch_is_the_piece_and_its_frame_is_around_it():
    piece = Cutout.cut(IMAGE, (3, 8, 10, 14), "x")
    patch, image = shown(collage([("a", [piece])]))
    np.testing.assert_array_equal(patch, IMAGE[3:8, 10:14])
    np.testing.assert_array_equal(image, IMAGE)
    assert piece.frame == (10, 3, 4, 5)


def test_the_frame_shrinks_with_its_image():
    large = np.repeat(np.repeat(IMAGE, 40, 0), 40, 1)
    piece = Cutout.cut(large, (120, 320, 400, 560), "x")
    assert max(piece.image.shape) == 128
    left, top, wide, high = (value * 1200 / 128 for value in piece.frame)
    assert (left, top, wide, high) == pytest.approx((400, 120, 160, 200))


@pytest.mark.parametrize("box", [None, (5, 5, 7, 9)])
def test_without_a_patch_it_says_so(box: tuple[int, int, int, int] | None) -> None:
    figure = collage([("a", [Cutout.cut(IMAGE, box, "x")])])
    (image,) = shown(figure)
    np.testing.assert_array_equal(image, IMAGE)
    assert "no patch" in [text.get_text() for ax in figure.axes for text in ax.texts]
