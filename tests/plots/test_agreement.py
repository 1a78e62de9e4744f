from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tff.plots import channels

WORDS = {"share": "found", "share_by_chance": "by chance", "share_within_layers": "within"}


def curves(n: int) -> pd.DataFrame:
    k = np.unique(np.geomspace(1, max(n, 1), 50).round())[:n]
    return pd.DataFrame(
        {"k": k, "share": 0.5, "share_by_chance": k / max(n, 1), "share_within_layers": 0.2}
    )


def layers(names: list[str], value: float = 0.4) -> pd.DataFrame:
    return pd.DataFrame({"layer": names, "spearman": value})


DEEP = [f"layer{i}.{j}.conv{c}" for i in (1, 2, 3, 4) for j in range(4) for c in (1, 2, 3)]
CASES: dict[str, Callable[[list[str]], Figure]] = {
    "overlap, one": lambda _: channels.ranking_overlap(curves(1), WORDS, 1),
    "overlap, many": lambda _: channels.ranking_overlap(curves(26560), WORDS, 114),
    "layers, odd names": lambda hard: channels.layer_correlations(layers(hard)),
    "layers, missing": lambda hard: channels.layer_correlations(layers(hard, np.nan)),
    "layers, many": lambda _: channels.layer_correlations(layers(DEEP, -0.3)),
}


@pytest.mark.parametrize("case", CASES)
def test_survives_and_is_reproducible(
    case: str, hard: list[str], svg: Callable[[Figure], str]
) -> None:
    first = svg(CASES[case](hard))
    assert "no data" not in first
    assert first == svg(CASES[case](hard))


def test_without_data_says_so(svg: Callable[[Figure], str]) -> None:
    assert "no data" in svg(channels.ranking_overlap(curves(0), WORDS, 1))
    assert "no data" in svg(channels.layer_correlations(layers([])))


def test_lines_are_the_columns() -> None:
    table = curves(1000)
    ax = channels.ranking_overlap(table, WORDS, 30).axes[0]
    for line, (column, word) in zip(ax.lines, WORDS.items(), strict=False):
        assert line.get_label() == word
        assert line.get_ydata().tolist() == table[column].tolist()
    assert ax.get_xscale() == "log"
    assert ax.lines[3].get_xdata() == [30, 30]
    assert "k = 30" in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("names", [["conv1", "conv2", "fc"], DEEP])
def test_a_bar_a_layer_in_order(names: list[str]) -> None:
    values = np.linspace(-0.5, 0.9, len(names))
    values[1] = np.nan
    ax = channels.layer_correlations(layers(names).assign(spearman=values)).axes[0]
    bars = [patch for patch in ax.patches if patch.get_height() == 0.7]
    assert [bar.get_width() for bar in bars] == np.nan_to_num(values).tolist()
    low, high = ax.get_xlim()
    assert low < -0.5
    assert high > 0.9
    (cross,) = [line for line in ax.lines if line.get_marker() == "x"]
    assert cross.get_ydata().tolist() == [1]


def test_many_layers_are_named_by_their_blocks() -> None:
    ax = channels.layer_correlations(layers(DEEP)).axes[0]
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == list(dict.fromkeys(name.rpartition(".")[0] for name in DEEP))
    assert ax.get_yticks()[:2].tolist() == [1, 4]  # the middle of three bars
