"""Ours beside theirs: each where it belongs, and each as what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tff.plots.grouped import published_comparison

WORDS = {"baseline": "nothing dropped", "top_k": "top k dropped", "absent": "?"}


def table(names: Sequence[str], ours: float = 0.9) -> pd.DataFrame:
    rows = [(name, what) for name in names for what in ("top_k", "baseline")]
    return pd.DataFrame(rows, columns=["generator", "what"]).assign(
        ours=ours,
        ours_low=ours - 0.05,
        ours_high=ours + 0.05,
        published=0.8,
        protocol_matches=True,
        suspect="",
    )


def drawn(figure: Figure, marker: str) -> list[tuple[float, float]]:
    lines = [line for line in figure.axes[0].lines if line.get_marker() == marker]
    return [(float(x), float(y)) for line in lines for x, y in line.get_xydata()]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("ours", [0.9, np.nan])
def test_survives_and_is_reproducible(
    ours: float, hard: list[str], svg: Callable[[Figure], str]
) -> None:
    first = svg(published_comparison(table(hard, ours), WORDS, "AP"))
    assert "no data" not in first
    assert first == svg(published_comparison(table(hard, ours), WORDS, "AP"))


def test_without_data_says_so(svg: Callable[[Figure], str]) -> None:
    assert "no data" in svg(published_comparison(table([]), WORDS, "AP"))


def test_ours_and_theirs_stand_in_one_row() -> None:
    figure = published_comparison(table(["a", "b"]).assign(ours=[0.1, 0.2, 0.3, 0.4]), WORDS, "AP")
    ours, theirs = drawn(figure, "o"), drawn(figure, "D")
    assert [x for x, _ in ours] == [0.2, 0.4, 0.1, 0.3]  # baseline first, as in the words
    assert [x for x, _ in theirs] == [0.8] * 4
    assert [y for _, y in ours] == [y for _, y in theirs]
    assert [round(y) for _, y in ours] == [0, 1, 0, 1]
    assert words(figure) == ["nothing dropped", "top k dropped", "published"]


def test_what_was_measured_otherwise_and_what_is_suspect_are_marked() -> None:
    rows = table(["a", "b"])
    rows["published"] = [0.5, 0.6, 0.7, 0.8]
    rows["protocol_matches"] = [True, False, False, True]
    rows.loc[2, "suspect"] = "repeats"  # that it is suspect says more
    figure = published_comparison(rows, WORDS, "AP")
    assert {x for x, _ in drawn(figure, "D")} == {0.5, 0.8}
    assert {x for x, _ in drawn(figure, "|")} == {0.6}
    assert {x for x, _ in drawn(figure, "x")} == {0.7}
    assert words(figure)[2:] == [
        "published", "published, measured otherwise", "published, suspect",
    ]  # fmt: skip


def test_intervals_reach_from_low_to_high() -> None:
    (collection,) = published_comparison(table(["a"]).head(1), WORDS, "AP").axes[0].collections
    (segment,) = collection.get_segments()
    assert segment[:, 0].tolist() == pytest.approx([0.85, 0.95])
