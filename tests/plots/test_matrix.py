"""Cells with their numbers, colors and names."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from tff.plots.scatter import SCALE, matrix_plot
from tff.plots.style import HUES

VALUES = pd.DataFrame(
    [[0.5, -0.25, np.nan], [0.004, -0.004, 1.0]], ["color", "blur"], ["a", "b", "c"]
)


def test_each_number_stands_in_its_cell_and_nan_nowhere():
    ax = matrix_plot(VALUES, "lost", 1.0).axes[0]
    texts = {tuple(map(round, text.get_position())): text.get_text() for text in ax.texts}
    assert texts == {(0, 0): "0.50", (1, 0): "-0.25", (0, 1): "0.00", (1, 1): "0.00",
                     (2, 1): "1.00"}  # fmt: skip
    assert [t.get_text() for t in ax.get_yticklabels()] == ["color", "blur"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    assert ax.get_xlabel() == "lost"
    # The first row is above the second.
    assert ax.transData.transform((0, 0))[1] > ax.transData.transform((0, 1))[1]


def test_colors_go_from_one_hue_through_white_to_the_other():
    image = matrix_plot(VALUES, "lost", 0.5).axes[0].images[0]
    np.testing.assert_array_equal(image.get_array().filled(np.nan), VALUES.to_numpy())
    assert image.get_clim() == (-0.5, 0.5)
    for value, color in ((0.5, HUES[1]), (0.0, "#ffffff"), (-0.5, HUES[0]), (9.0, HUES[1])):
        assert image.to_rgba(np.array([value]))[0, :3] == pytest.approx(to_rgb(color), abs=0.01)
    assert SCALE(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.01)


def test_numbers_that_are_not_sure_are_small_and_gray():
    sure = pd.DataFrame([[True, False, True], [False, True, True]], VALUES.index, VALUES.columns)
    look = {
        tuple(map(round, text.get_position())): (text.get_fontsize(), text.get_color())
        for text in matrix_plot(VALUES, "lost", 1.0, sure).axes[0].texts
    }
    assert look[0, 0] == look[1, 1] == look[2, 1]
    assert look[1, 0] == look[0, 1]
    assert look[1, 0][0] < look[0, 0][0]
    assert look[1, 0][1] != look[0, 0][1]
    every = matrix_plot(VALUES, "lost", 1.0).axes[0].texts
    assert {(t.get_fontsize(), t.get_color()) for t in every} == {look[0, 0]}


@pytest.mark.filterwarnings("ignore:Glyph")
def test_many_and_odd_names_are_drawn_inside_the_figure(hard, svg):
    values = pd.DataFrame(np.linspace(-1, 1, len(hard) ** 2).reshape(len(hard), -1), hard, hard)
    figure = matrix_plot(values, "lost", 1.0)
    assert svg(figure) == svg(matrix_plot(values, "lost", 1.0))
    figure.canvas.draw()
    ax, box = figure.axes[0], figure.bbox
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label):
        extent = label.get_window_extent()
        assert extent.x0 >= box.x0 - 1
        assert extent.y0 >= box.y0 - 1
        assert extent.x1 <= box.x1 + 1


def test_one_cell_and_nothing(svg):
    assert "no data" not in svg(matrix_plot(VALUES.iloc[:1, :1], "lost", 1.0))
    assert "no data" in svg(matrix_plot(pd.DataFrame(), "lost", 1.0))
