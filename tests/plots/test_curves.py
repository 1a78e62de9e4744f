from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tff.plots.curves import dropout_curves, highlighted_lines, share_curves
from tff.plots.style import HUES, MUTED

LABELS = {"omega": "omega (FF-RS)", "random": "random", "absent": "?"}


def points(kinds=("random", "omega"), shares=(0.0, 0.001, 0.0043, 0.1)):
    rows = [
        (kind, share, 0.9 - i / 10 - share, 0.8 - i / 10 - share, 0.95 - i / 10 - share)
        for i, kind in enumerate(kinds)
        for share in reversed(shares)  # in any order
    ]
    return pd.DataFrame(rows, columns=["ranking", "share", "ap", "ap_low", "ap_high"])


def dropout(table, labels=LABELS):
    return dropout_curves(table, "share", "ranking", "ap", "dropped", "AP", labels)


def courses(names, steps=(10, 20, 40), bounds=True):
    random = np.random.default_rng(0)
    rows = [(s, n, random.random()) for n in names for s in reversed(steps)]
    table = pd.DataFrame(rows, columns=["step", "name", "omega"])
    ends = {"omega_low": table["omega"] / 2, "omega_high": table["omega"] * 3}
    return table.assign(**ends) if bounds else table


def highlighted(table, names):
    return highlighted_lines(table, "step", "name", "omega", "omega", names)


CASES: dict[str, Callable[[list[str]], Figure]] = {
    "dropout, a lone point": lambda _: dropout(points(shares=(0.0,))),
    "dropout, missing": lambda _: dropout(
        points().assign(ap=np.nan, ap_low=np.nan, ap_high=np.nan)
    ),
    "dropout, many": lambda hard: dropout(points(kinds=hard), None),
    "highlighted, one step": lambda hard: highlighted(courses(hard, steps=(3,)), hard[:5]),
    "highlighted, missing": lambda _: highlighted(
        courses(["a", "b"]).assign(omega=np.nan, omega_low=np.nan, omega_high=np.nan), ["a"]
    ),
    "shares, one step": lambda _: share_curves(
        pd.DataFrame({"step": [7], "a": [np.nan], "b": [0.5]}),
        "step", {"a": "$x_", "b": "b"}, "share", {"b": "c"},
    ),
}  # fmt: skip
EMPTY = {
    "dropout": lambda: dropout(points().head(0)),
    "highlighted": lambda: highlighted(courses(["a"]).head(0), ["a"]),
    "shares": lambda: share_curves(pd.DataFrame(columns=["step", "a"]), "step", {"a": "a"}, "b"),
}


@pytest.mark.parametrize("case", CASES)
def test_renders(case, hard, svg, is_empty):
    figure = CASES[case](hard)
    assert not is_empty(figure)
    assert svg(figure)


@pytest.mark.parametrize("case", EMPTY)
def test_without_data_says_so(case, is_empty):
    assert is_empty(EMPTY[case]())


def test_a_line_and_a_band_for_each_kind():
    table = points()
    figure = dropout(table)
    ax = figure.axes[0]
    assert [line.get_label() for line in ax.lines] == ["omega (FF-RS)", "random"]
    for kind, line, band in zip(("omega", "random"), ax.lines, ax.collections, strict=True):
        part = table[table["ranking"] == kind].sort_values("share")
        np.testing.assert_allclose(line.get_xdata(), part["share"])
        np.testing.assert_allclose(line.get_ydata(), part["ap"])
        corners = band.get_paths()[0].vertices
        for share, low, high in part[["share", "ap_low", "ap_high"]].to_numpy():
            at = corners[np.isclose(corners[:, 0], share), 1]
            np.testing.assert_allclose((at.min(), at.max()), (low, high))
        np.testing.assert_allclose(band.get_facecolor()[0, :3], to_rgb(line.get_color()))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["omega (FF-RS)", "random"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("dropped", "AP")


def test_matched_channels_are_a_gray_band_and_chance_a_line():
    table = points().assign(matched=0.5, matched_low=0.4, matched_high=0.6)
    part = table[table["ranking"] == "omega"]
    ax = dropout_curves(table, "share", "ranking", "ap", "", "AP", LABELS, part, 0.45).axes[0]
    gray, chance = ax.lines[-2:]
    assert gray.get_label() == "random, layers of omega (FF-RS)"
    np.testing.assert_allclose(gray.get_xdata(), sorted(part["share"]))
    assert set(gray.get_ydata()) == {0.5}
    corners = ax.collections[-1].get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == (0.4, 0.6)
    assert list(chance.get_ydata()) == [0.45, 0.45]


def test_every_number_has_a_tick_and_zero_has_a_place():
    ax = dropout(points(shares=(0, 1, 5, 21, 480, 4800))).axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "5", "21", "480", "4,800"]
    at = [ax.transData.transform((x, 0.5))[0] for x in ax.get_xticks()]
    assert np.isfinite(at).all()
    assert (np.diff(at) > 10).all()  # apart, and rising


def test_kinds_without_labels_have_their_own_names():
    ax = dropout(points(kinds=("b", "a")), None).axes[0]
    assert [line.get_label() for line in ax.lines] == ["b", "a"]


def test_named_lines_are_colored_and_banded_and_the_others_gray():
    table = courses(["a", "b", "c", "d"])
    figure = highlighted(table, ["c", "a", "absent"])
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
    figure = highlighted(courses(["a", "b"], bounds=False), ["a", "b"])
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
