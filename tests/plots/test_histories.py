"""Lines of a training stand where the numbers are; the few that are named stand out."""

import numpy as np
import pandas as pd
import pytest

from tff.plots.curves import highlighted_lines, share_curves
from tff.plots.style import HUES, MUTED


def courses(names, steps=(10, 20, 40), bounds=True):
    random = np.random.default_rng()
    rows = [(s, n, random.random()) for n in names for s in reversed(steps)]
    table = pd.DataFrame(rows, columns=["step", "name", "omega"])
    ends = {"omega_low": table["omega"] / 2, "omega_high": table["omega"] * 3}
    return table.assign(**ends) if bounds else table


def drawn(table, named):
    return highlighted_lines(table, "step", "name", "omega", "omega", named)


def test_named_lines_are_colored_and_banded_and_the_others_gray():
    table = courses(["a", "b", "c", "d"])
    figure = drawn(table, ["c", "a", "absent"])
    ax = figure.axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["c", "a", "2 others"]
    assert HUES[2] not in (lines["c"].get_color(), lines["a"].get_color())
    for name in ("c", "a"):
        part = table[table["name"] == name].sort_values("step")
        np.testing.assert_array_equal(lines[name].get_xdata(), part["step"])
        np.testing.assert_array_equal(lines[name].get_ydata(), part["omega"])
    gray = [line for line in ax.lines if line.get_color() == MUTED and len(line.get_xdata())]
    want = [table[table["name"] == n].sort_values("step")["omega"].tolist() for n in "bd"]
    assert [line.get_ydata().tolist() for line in gray] == want
    assert len(ax.collections) == 2
    corners = ax.collections[0].get_paths()[0].vertices[:, 1]
    part = table[table["name"] == "c"]
    assert corners.min() == pytest.approx(part["omega_low"].min())
    assert corners.max() == pytest.approx(part["omega_high"].max())
    top = table.loc[table["name"].isin(["a", "c"]), "omega_high"].max()
    assert ax.get_ylim()[1] >= max(top, table["omega"].max())  # nothing is cut off


def test_without_bounds_or_others():
    figure = drawn(courses(["a", "b"], bounds=False), ["a", "b"])
    assert len(figure.axes[0].collections) == 0
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "b"]


def test_shares_have_lines_bands_and_dashes_of_chance():
    table = pd.DataFrame(
        {
            "step": [30, 10], "one": [0.9, 0.1], "one_low": [0.8, 0.0], "one_high": [1.0, 0.2],
            "two": [0.5, 0.4], "luck": [0.03, 0.02],
        }
    )  # fmt: skip
    figure = share_curves(
        table, "step", {"one": "first", "two": "second"}, "share", {"luck": "chance"}
    )
    ax = figure.axes[0]
    assert [line.get_label() for line in ax.lines] == ["first", "second", "chance"]
    assert [line.get_ydata().tolist() for line in ax.lines] == [
        [0.1, 0.9],
        [0.4, 0.5],
        [0.02, 0.03],
    ]
    assert all(line.get_xdata().tolist() == [10, 30] for line in ax.lines)
    assert [line.is_dashed() for line in ax.lines] == [False, False, True]
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    assert {*corners[corners[:, 0] == 30, 1]} == {0.8, 1.0}
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("share", "training step")


def test_odd_names_one_step_and_gaps_are_drawn_alike_twice(hard, svg):
    one = courses(hard, steps=(3,))
    first = svg(drawn(one, hard[:5]))
    assert first == svg(drawn(one, hard[:5]))
    assert "no data" not in first
    gap = courses(["a", "b"]).assign(omega=np.nan, omega_low=np.nan, omega_high=np.nan)
    assert "no data" not in svg(drawn(gap, ["a"]))
    alone = pd.DataFrame({"step": [7], "a": [np.nan], "b": [0.5]})
    assert "no data" not in svg(
        share_curves(alone, "step", {"a": "$x_", "b": "b"}, "share", {"b": "c"})
    )


def test_without_data_says_so(svg):
    assert "no data" in svg(drawn(courses(["a"]).head(0), ["a"]))
    assert "no data" in svg(
        share_curves(pd.DataFrame(columns=["step", "a"]), "step", {"a": "a"}, "b")
    )
