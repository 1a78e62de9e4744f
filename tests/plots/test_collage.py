"""The collage keeps its order and shows what was cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from tff.plots.image_grids import Cutout, collage

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def shown(figure: Figure) -> list[np.ndarray]:
    return [ax.images[0].get_array() for ax in figure.axes if ax.images]


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


def test_survives_and_is_reproducible(hard: list[str], svg: Callable[[Figure], str]) -> None:
    def draw() -> Figure:
        boxes = (None, (0, 20, 0, 30), (1, 2, 1, 2), (4, 4, 0, 3))
        pieces = [Cutout.cut(IMAGE, box, name) for box, name in zip(boxes, hard, strict=False)]
        return collage([(name, pieces[: i % 5]) for i, name in enumerate(hard)])

    assert svg(draw()) == svg(draw())
    assert "no data" in svg(collage([]))
    assert "no data" in svg(collage([("a", [])]))
