from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tff.plots.scatter import SCALE, matrix_plot, repeated_trainings, scatter_plot
from tff.plots.style import HUES, MUTED

VALUES = pd.DataFrame(
    [[0.5, -0.25, np.nan], [0.004, -0.004, 1.0]], ["color", "blur"], ["a", "b", "c"]
)


def points(groups, times=3):
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        [(g, random.random(), random.random()) for _ in range(times) for g in groups],
        columns=["group", "share", "ap"],
    )
    return table.assign(ap_low=table["ap"] - 0.1, ap_high=table["ap"] + 0.2)


def drawn(table):
    return scatter_plot(table, "share", "ap", "group", "share", "AP")


CASES: dict[str, Callable[[list[str]], Figure]] = {
    "scatter": lambda hard: drawn(points(hard)),
    "trainings": lambda hard: repeated_trainings(points(hard), "group", "ap", "AP"),
    "matrix, one cell": lambda _: matrix_plot(VALUES.iloc[:1, :1], "lost", 1.0),
}
EMPTY = {
    "scatter": lambda: drawn(pd.DataFrame()),
    "scatter, missing": lambda: drawn(points(["a"]).assign(ap=np.nan)),
    "trainings": lambda: repeated_trainings(pd.DataFrame(), "group", "ap", "AP"),
    "trainings, missing": lambda: repeated_trainings(
        points(["a"]).assign(ap=np.nan), "group", "ap", "AP"
    ),
    "matrix": lambda: matrix_plot(pd.DataFrame(), "lost", 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_renders(case, hard, svg, is_empty):
    figure = CASES[case](hard)
    assert not is_empty(figure)
    assert svg(figure)


@pytest.mark.parametrize("case", EMPTY)
def test_without_data_says_so(case, is_empty):
    assert is_empty(EMPTY[case]())


def test_each_group_has_its_look_and_bars():
    table = points(["a", "b", "c"])
    table.loc[1, "ap"] = np.nan
    ax = drawn(table).axes[0]
    assert [line.get_label() for line in ax.lines] == ["a", "c", "b"]  # as they come
    for line, bars in zip(ax.lines, ax.collections, strict=True):
        part = table[(table["group"] == line.get_label()) & table["ap"].notna()]
        np.testing.assert_array_equal(line.get_xdata(), part["share"])
        np.testing.assert_array_equal(line.get_ydata(), part["ap"])
        ends = np.array(bars.get_segments())
        np.testing.assert_allclose(ends[:, :, 0], np.stack([part["share"]] * 2, axis=1))
        np.testing.assert_allclose(ends[:, :, 1], part[["ap_low", "ap_high"]])
    assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == 3
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("share", "AP")


def test_without_bounds_there_are_no_bars():
    assert len(drawn(points(["a"])[["group", "share", "ap"]]).axes[0].collections) == 0


def test_twelve_groups_can_be_told_apart_and_more_are_gray():
    names = [f"g{i}" for i in range(15)]
    figure = drawn(points(names))
    lines = figure.axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines[:12]}) == 12
    assert {(line.get_color(), line.get_marker()) for line in lines[12:]} == {(MUTED, "X")}
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [*names[:12], "others"]


def test_equal_numbers_do_not_make_an_axis_of_rounding_errors():
    ax = drawn(points(["a"]).assign(share=0.3, ap=0.9, ap_low=0.9, ap_high=0.9)).axes[0]
    assert np.ptp(ax.get_xlim()) > 0.05
    assert np.ptp(ax.get_ylim()) > 0.05


def test_one_row_per_group_with_mean_and_deviation():
    table = points(["b", "a"], times=4)
    alone = pd.DataFrame({"group": ["one", "none"], "ap": [0.5, np.nan]})
    ax = repeated_trainings(pd.concat([table, alone]), "group", "ap", "AP").axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "a", "one", "none"]
    dots = [x for x in ax.lines if x.get_marker() == "o" and len(x.get_xdata())]
    means = [x for x in ax.lines if x.get_marker() == "|" and len(x.get_xdata())]
    assert [int(x.get_ydata()[0]) for x in dots] == [0, 1, 2]  # `none` has no number
    for i, name in enumerate(("b", "a")):
        values = table.loc[table["group"] == name, "ap"]
        np.testing.assert_array_equal(dots[i].get_xdata(), values)
        np.testing.assert_allclose(means[i].get_xdata(), [values.mean()])
        ((start, end),) = ax.collections[i].get_segments()
        assert start[1] == end[1] == i
        np.testing.assert_allclose(end[0] - start[0], 2 * values.std(ddof=1))
    assert len(ax.collections) == 2  # one time has no spread


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


def test_numbers_that_are_not_significant_are_small_and_gray():
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
    assert svg(figure)
    figure.canvas.draw()
    ax, box = figure.axes[0], figure.bbox
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label):
        extent = label.get_window_extent()
        assert extent.x0 >= box.x0 - 1
        assert extent.y0 >= box.y0 - 1
        assert extent.x1 <= box.x1 + 1
