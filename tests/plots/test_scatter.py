"""Dots stand where the numbers are, and look as their group does."""

import numpy as np
import pandas as pd

from tff.plots.scatter import repeated_trainings, scatter_plot
from tff.plots.style import MUTED


def points(groups, times=3):
    random = np.random.default_rng()
    table = pd.DataFrame(
        [(g, random.random(), random.random()) for _ in range(times) for g in groups],
        columns=["group", "share", "ap"],
    )
    return table.assign(ap_low=table["ap"] - 0.1, ap_high=table["ap"] + 0.2)


def drawn(table):
    return scatter_plot(table, "share", "ap", "group", "share", "AP")


def test_a_look_for_each_group_and_bars_of_its_bounds():
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


def test_a_row_a_group_with_its_mean_and_deviation():
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


def test_odd_names_are_drawn_alike_twice(hard, svg):
    table = points(hard)
    assert svg(drawn(table)) == svg(drawn(table))
    first = svg(repeated_trainings(table, "group", "ap", "AP"))
    assert first == svg(repeated_trainings(table, "group", "ap", "AP"))
    assert "no data" not in first


def test_without_data_says_so(svg):
    for table in (pd.DataFrame(), points(["a"]).assign(ap=np.nan)):
        assert "no data" in svg(drawn(table))
        assert "no data" in svg(repeated_trainings(table, "group", "ap", "AP"))
