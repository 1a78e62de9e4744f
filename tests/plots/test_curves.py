"""Lines and bands stand where the numbers are."""

import numpy as np
import pandas as pd

from tff.plots.curves import dropout_curves

WORDS = {"omega": "omega (FF-RS)", "random": "random", "absent": "?"}


def points(kinds=("random", "omega"), shares=(0.0, 0.001, 0.0043, 0.1)):
    rows = [
        (kind, share, 0.9 - i / 10 - share, 0.8 - i / 10 - share, 0.95 - i / 10 - share)
        for i, kind in enumerate(kinds)
        for share in reversed(shares)  # in any order
    ]
    return pd.DataFrame(rows, columns=["ranking", "share", "ap", "ap_low", "ap_high"])


def drawn(table, words=WORDS):
    return dropout_curves(table, "share", "ranking", "ap", "dropped", "AP", words)


def test_a_line_and_a_band_for_each_kind():
    table = points()
    figure = drawn(table)
    ax = figure.axes[0]
    assert [line.get_label() for line in ax.lines] == ["omega (FF-RS)", "random"]
    for kind, line, band in zip(("omega", "random"), ax.lines, ax.collections, strict=True):
        part = table[table["ranking"] == kind].sort_values("share")
        np.testing.assert_allclose(line.get_xdata(), 100 * part["share"])
        np.testing.assert_allclose(line.get_ydata(), part["ap"])
        corners = band.get_paths()[0].vertices
        for share, low, high in part[["share", "ap_low", "ap_high"]].to_numpy():
            at = corners[np.isclose(corners[:, 0], 100 * share), 1]
            np.testing.assert_allclose((at.min(), at.max()), (low, high))
        np.testing.assert_allclose(band.get_facecolor()[0, :3], _rgb(line.get_color()))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["omega (FF-RS)", "random"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("dropped", "AP")


def _rgb(color):
    from matplotlib.colors import to_rgb

    return to_rgb(color)


def test_every_share_has_a_short_tick_and_zero_has_a_place():
    ax = drawn(points(shares=(0.0, 5 / 4800, 10 / 4800, 21 / 4800, 0.1, 1.0))).axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "0.1", "0.21", "0.44", "10", "100"]
    at = [ax.transData.transform((x, 0.5))[0] for x in ax.get_xticks()]
    assert np.isfinite(at).all()
    assert (np.diff(at) > 10).all()  # apart, and rising


def test_kinds_without_words_bear_their_own_names():
    ax = drawn(points(kinds=("b", "a")), None).axes[0]
    assert [line.get_label() for line in ax.lines] == ["b", "a"]


def test_gaps_lone_points_and_many_kinds_are_drawn_alike_twice(hard, svg):
    lone = points(shares=(0.0,))
    assert "no data" not in svg(drawn(lone))
    gap = points().assign(ap=np.nan, ap_low=np.nan, ap_high=np.nan)
    assert "no data" not in svg(drawn(gap))
    many = points(kinds=hard)
    assert svg(drawn(many, None)) == svg(drawn(many, None))


def test_without_data_says_so(svg):
    assert "no data" in svg(drawn(points().head(0)))
