"""Figures that compare survive what real runs bring, and put each value where it belongs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tff.plots import grouped as comparison


def results(names: Sequence[str], value: float = 0.8) -> pd.DataFrame:
    kinds = ("none", "top_k", "random_k", "low_k")
    rows = [(n, d, value, value - 0.1, value + 0.1, n == names[-1]) for n in names for d in kinds]
    return pd.DataFrame(rows, columns=["generator", "dropout", "ap", "low", "high", "seen"])


def grouped(table: pd.DataFrame) -> Figure:
    return comparison.grouped_points(
        table, "generator", "dropout", "ap", "low", "high", "AP", reference=0.5
    )


CASES: dict[str, Callable[[list[str]], Figure]] = {
    "grouped, one": lambda _: grouped(results(["a"]).head(1)),
    "grouped, twelve": lambda hard: grouped(results(hard)),
    "grouped, missing": lambda _: grouped(results(["a", "b"], np.nan)),
}


@pytest.mark.parametrize("case", CASES)
def test_survives_and_is_reproducible(
    case: str, hard: list[str], svg: Callable[[Figure], str]
) -> None:
    first = svg(CASES[case](hard))
    assert "no data" not in first
    assert first == svg(CASES[case](hard))


@pytest.mark.parametrize("draw", [grouped])
def test_without_data_says_so(
    draw: Callable[[pd.DataFrame], Figure], svg: Callable[[Figure], str]
) -> None:
    assert "no data" in svg(draw(pd.DataFrame()))


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
    figure = comparison.grouped_points(
        results(["a"]), "generator", "dropout", "ap", None, None, "AP", labels=words
    )
    found = [text.get_text() for text in figure.legends[0].get_texts()]
    assert found == ["T-FF", "nothing", "random_k", "low_k"]


def test_names_are_not_formulas_outside_of_the_style_either(svg: Callable[[Figure], str]) -> None:
    grouped(results(["$a_b$", "$x$ $"])).savefig(io.BytesIO(), format="svg")
    assert "$a_b$" in svg(grouped(results(["$a_b$"])))
