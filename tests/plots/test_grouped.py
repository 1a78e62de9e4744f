from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tff.plots.grouped import box_plot, grouped_points, histograms, published_comparison


def results(names: Sequence[str], value: float = 0.8) -> pd.DataFrame:
    kinds = ("none", "top_k", "random_k", "low_k")
    rows = [(n, d, value, value - 0.1, value + 0.1, n == names[-1]) for n in names for d in kinds]
    return pd.DataFrame(rows, columns=["generator", "dropout", "ap", "low", "high", "seen"])


def grouped(table: pd.DataFrame) -> Figure:
    return grouped_points(table, "generator", "dropout", "ap", "low", "high", "AP", reference=0.5)


LABELS = {"baseline": "nothing dropped", "top_k": "top k dropped", "absent": "?"}


def published(names: Sequence[str], ours: float = 0.9) -> pd.DataFrame:
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


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


NAN = np.full(5, np.nan)
CASES: dict[str, Callable[[list[str]], Figure]] = {
    "points, one": lambda _: grouped(results(["a"]).head(1)),
    "points, twelve": lambda hard: grouped(results(hard)),
    "points, missing": lambda _: grouped(results(["a", "b"], np.nan)),
    "boxes, one": lambda _: box_plot({"a": {"color": np.array([0.5])}}, "p"),
    "boxes, twelve": lambda hard: box_plot({n: {"a": NAN, "b": np.arange(3)} for n in hard}, "p"),
    "boxes, unequal": lambda _: box_plot({"a": {"x": NAN[:0]}, "b": {"y": np.ones(3)}}, "p"),
    "histograms, one": lambda _: histograms([("a", np.ones(1), np.ones(1))], ("x", "y")),
    "histograms, twelve": lambda hard: histograms(
        [(name, NAN, np.arange(9.0)) for name in hard], ("x", "y")
    ),
    "histograms, missing": lambda _: histograms([("a", NAN, NAN)], ("x", "y")),
    "published": lambda hard: published_comparison(published(hard), LABELS, "AP"),
    "published, missing": lambda hard: published_comparison(published(hard, np.nan), LABELS, "AP"),
}
EMPTY = {
    "points": lambda: grouped(pd.DataFrame()),
    "boxes": lambda: box_plot({}, "p"),
    "boxes, no sample": lambda: box_plot({"a": {}}, "p"),
    "histograms": lambda: histograms([], ("x", "y")),
    "published": lambda: published_comparison(published([]), LABELS, "AP"),
}


@pytest.mark.parametrize("case", CASES)
def test_renders(case, hard, svg, is_empty):
    figure = CASES[case](hard)
    assert not is_empty(figure)
    assert svg(figure)


@pytest.mark.parametrize("case", EMPTY)
def test_without_data_says_so(case, is_empty):
    assert is_empty(EMPTY[case]())


def test_seen_generator_comes_first_and_is_marked() -> None:
    ax = grouped(results(["b", "a", "seen one"])).axes[0]
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == ["seen one (seen)", "b", "a"]


def test_dots_stand_at_their_values_in_the_row_of_their_generator() -> None:
    table = results(["a", "b"]).assign(ap=np.arange(8) / 10)
    lines = grouped(table).axes[0].lines
    top_k = next(line for line in lines if line.get_label() == "top_k")
    # "b" is the seen one, so its row is 0.
    assert np.round(top_k.get_ydata()).tolist() == [1, 0]
    assert list(top_k.get_xdata()) == [0.1, 0.5]


def test_labels_set_words_and_order() -> None:
    words = {"top_k": "T-FF", "none": "nothing", "absent": "?"}
    figure = grouped_points(
        results(["a"]), "generator", "dropout", "ap", None, None, "AP", labels=words
    )
    found = [text.get_text() for text in figure.legends[0].get_texts()]
    assert found == ["T-FF", "nothing", "random_k", "low_k"]


def test_names_are_not_formulas_outside_of_the_style_either(svg):
    grouped(results(["$a_b$", "$x$ $"])).savefig(io.BytesIO(), format="svg")
    assert "$a_b$" in svg(grouped(results(["$a_b$"])))


def test_the_same_figure_is_the_same_file(hard, svg):
    first = svg(grouped(results(hard)))
    assert first == svg(grouped(results(hard)))


def test_ours_and_theirs_stand_in_one_row() -> None:
    figure = published_comparison(
        published(["a", "b"]).assign(ours=[0.1, 0.2, 0.3, 0.4]), LABELS, "AP"
    )
    ours, theirs = drawn(figure, "o"), drawn(figure, "D")
    assert [x for x, _ in ours] == [0.2, 0.4, 0.1, 0.3]  # baseline first, as in the labels
    assert [x for x, _ in theirs] == [0.8] * 4
    assert [y for _, y in ours] == [y for _, y in theirs]
    assert [round(y) for _, y in ours] == [0, 1, 0, 1]
    assert legend(figure) == ["nothing dropped", "top k dropped", "published"]


def test_other_protocols_and_suspect_numbers_are_marked() -> None:
    rows = published(["a", "b"])
    rows["published"] = [0.5, 0.6, 0.7, 0.8]
    rows["protocol_matches"] = [True, False, False, True]
    rows.loc[2, "suspect"] = "repeats"  # that it is suspect says more
    figure = published_comparison(rows, LABELS, "AP")
    assert {x for x, _ in drawn(figure, "D")} == {0.5, 0.8}
    assert {x for x, _ in drawn(figure, "|")} == {0.6}
    assert {x for x, _ in drawn(figure, "x")} == {0.7}
    assert legend(figure)[2:] == [
        "published", "published, other protocol", "published, suspect",
    ]  # fmt: skip


def test_intervals_reach_from_low_to_high() -> None:
    (collection,) = published_comparison(published(["a"]).head(1), LABELS, "AP").axes[0].collections
    (segment,) = collection.get_segments()
    assert segment[:, 0].tolist() == pytest.approx([0.85, 0.95])
