"""Figures of channels survive one row, no value, no row, a dozen long names; they count right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tff.plots import channels


def ranking(layers: Sequence[str], width: int = 3) -> pd.DataFrame:
    rows = [(layer, c, 1 / (1 + i + c)) for i, layer in enumerate(layers) for c in range(width)]
    table = pd.DataFrame(rows, columns=["layer", "channel", "omega"]).assign(omega_real=0.1)
    return table.sort_values("omega", ascending=False, ignore_index=True)


CASES: dict[str, Callable[[list[str]], Figure]] = {
    "omega, one": lambda _: channels.omega_distribution(ranking(["a"], 1), 1),
    "omega, some zero or missing": lambda _: channels.omega_distribution(
        pd.DataFrame({"omega": [0.0, np.nan, 0.5, np.inf], "omega_real": np.nan}), 9
    ),
    "top, one": lambda _: channels.top_channels(ranking(["a"], 1)),
    "top, only one column": lambda hard: channels.top_channels(
        ranking(hard)[["layer", "channel", "omega"]]
    ),
    "top, missing": lambda hard: channels.top_channels(ranking(hard).assign(omega=np.nan)),
    "top, zero": lambda hard: channels.top_channels(
        ranking(hard).assign(omega=0.0, omega_real=0.0)
    ),
    "layers, one": lambda _: channels.channels_per_layer(ranking(["a"], 1), 1),
    "layers, no top": lambda hard: channels.channels_per_layer(ranking(hard), 0),
    "layers, many": lambda _: channels.channels_per_layer(
        ranking([f"b.{i}" for i in range(60)]), 20
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_survives_and_is_reproducible(
    case: str, hard: list[str], svg: Callable[[Figure], str]
) -> None:
    first = svg(CASES[case](hard))
    assert "no data" not in first
    assert first == svg(CASES[case](hard))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: channels.omega_distribution(pd.DataFrame({"omega": []}), 3),
        lambda: channels.omega_distribution(pd.DataFrame(), 3),
        lambda: channels.top_channels(pd.DataFrame()),
        lambda: channels.channels_per_layer(pd.DataFrame(), 3),
    ],
)
def test_without_data_says_so(draw: Callable[[], Figure], svg: Callable[[Figure], str]) -> None:
    assert "no data" in svg(draw())


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_layers_count_the_top_in_network_order() -> None:
    table = pd.DataFrame({"layer": ["l10", "l2", "l2", "l10", "l1"], "channel": [0, 0, 1, 1, 0]})
    figure = channels.channels_per_layer(table, 3)
    assert labels(figure) == ["l1", "l2", "l10"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0, 2, 1]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0 of 1", "2 of 2", "1 of 2"]
    assert labels(channels.channels_per_layer(table, 3, ["l10", "l1", "l2"])) == ["l10", "l1", "l2"]


def test_many_layers_are_gathered_by_block() -> None:
    table = ranking([f"layer{s}.{b}.conv{c}" for s in range(4) for b in range(5) for c in range(3)])
    figure = channels.channels_per_layer(table, 60)
    assert len(labels(figure)) == 20
    assert sum(bar.get_width() for bar in figure.axes[0].patches) == 60


def test_zeros_are_counted() -> None:
    figure = channels.omega_distribution(pd.DataFrame({"omega": [0.0, 0.0, 0.5]}), 1)
    assert "2 of 3" in figure.axes[0].get_xlabel()
