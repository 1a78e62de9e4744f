from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tff.plots.channels import (
    channels_per_layer,
    layer_correlations,
    omega_distribution,
    ranking_overlap,
    relevance_losses,
    top_channels,
)

LABELS = {"share": "found", "share_by_chance": "by chance", "share_within_layers": "within"}


def curves(n: int) -> pd.DataFrame:
    k = np.unique(np.geomspace(1, max(n, 1), 50).round())[:n]
    return pd.DataFrame(
        {"k": k, "share": 0.5, "share_by_chance": k / max(n, 1), "share_within_layers": 0.2}
    )


def correlations(names: list[str], value: float = 0.4) -> pd.DataFrame:
    return pd.DataFrame({"layer": names, "spearman": value})


DEEP = [f"layer{i}.{j}.conv{c}" for i in (1, 2, 3, 4) for j in range(4) for c in (1, 2, 3)]


def ranking(layers: Sequence[str], width: int = 3) -> pd.DataFrame:
    rows = [(layer, c, 1 / (1 + i + c)) for i, layer in enumerate(layers) for c in range(width)]
    table = pd.DataFrame(rows, columns=["layer", "channel", "omega"]).assign(omega_real=0.1)
    return table.sort_values("omega", ascending=False, ignore_index=True)


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def ledger(names: Sequence[str], bias: float = 0.01, zero: float = np.nan) -> pd.DataFrame:
    return pd.DataFrame({"operation": names, "lost_to_constants": bias, "lost_at_zero": zero})


MANY = [f"b.{i}" for i in range(60)]
CASES: dict[str, Callable[[list[str]], Figure]] = {
    "omega, one": lambda _: omega_distribution(ranking(["a"], 1), 1),
    "omega, some zero or missing": lambda _: omega_distribution(
        pd.DataFrame({"omega": [0.0, np.nan, 0.5, np.inf], "omega_real": np.nan}), 9
    ),
    "top, one": lambda _: top_channels(ranking(["a"], 1)),
    "top, only one column": lambda hard: top_channels(ranking(hard)[["layer", "channel", "omega"]]),
    "top, missing": lambda hard: top_channels(ranking(hard).assign(omega=np.nan)),
    "top, zero": lambda hard: top_channels(ranking(hard).assign(omega=0.0, omega_real=0.0)),
    "layers, one": lambda _: channels_per_layer(ranking(["a"], 1), 1, ["a"]),
    "layers, no top": lambda hard: channels_per_layer(ranking(hard), 0, hard),
    "layers, many": lambda _: channels_per_layer(ranking(MANY), 20, MANY),
    "overlap, one": lambda _: ranking_overlap(curves(1), LABELS, 1),
    "overlap, many": lambda _: ranking_overlap(curves(26560), LABELS, 114),
    "correlations, odd names": lambda hard: layer_correlations(correlations(hard)),
    "correlations, missing": lambda hard: layer_correlations(correlations(hard, np.nan)),
    "correlations, many": lambda _: layer_correlations(correlations(DEEP, -0.3)),
    "losses, one": lambda hard: relevance_losses(ledger(hard[:1], 0.0), 0.05),
    "losses, twelve": lambda hard: relevance_losses(ledger(hard, 0.2), 0.05),
    "losses, gains": lambda hard: relevance_losses(ledger(hard[:3], -3.0), 0.05),
}
EMPTY = {
    "omega": lambda: omega_distribution(pd.DataFrame({"omega": []}), 3),
    "omega, no column": lambda: omega_distribution(pd.DataFrame(), 3),
    "top": lambda: top_channels(pd.DataFrame()),
    "layers": lambda: channels_per_layer(pd.DataFrame(), 3, []),
    "overlap": lambda: ranking_overlap(curves(0), LABELS, 1),
    "correlations": lambda: layer_correlations(correlations([])),
    "losses": lambda: relevance_losses(ledger([]), 0.05),
}


@pytest.mark.parametrize("case", CASES)
def test_renders(case, hard, svg, is_empty):
    figure = CASES[case](hard)
    assert not is_empty(figure)
    assert svg(figure)


@pytest.mark.parametrize("case", EMPTY)
def test_without_data_says_so(case, is_empty):
    assert is_empty(EMPTY[case]())


def test_layers_count_the_top_in_network_order() -> None:
    table = pd.DataFrame({"layer": ["l10", "l2", "l2", "l10", "l1"], "channel": [0, 0, 1, 1, 0]})
    figure = channels_per_layer(table, 3, ["l1", "l2", "l10"])
    assert labels(figure) == ["l1", "l2", "l10"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0, 2, 1]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0 of 1", "2 of 2", "1 of 2"]


def test_many_layers_are_gathered_by_block() -> None:
    layers = [f"layer{s}.{b}.conv{c}" for s in range(4) for b in range(5) for c in range(3)]
    figure = channels_per_layer(ranking(layers), 60, layers)
    assert len(labels(figure)) == 20
    assert sum(bar.get_width() for bar in figure.axes[0].patches) == 60


def test_zeros_are_counted() -> None:
    figure = omega_distribution(pd.DataFrame({"omega": [0.0, 0.0, 0.5]}), 1)
    assert "2 of 3" in figure.axes[0].get_xlabel()


def test_lines_are_the_columns() -> None:
    table = curves(1000)
    ax = ranking_overlap(table, LABELS, 30).axes[0]
    for line, (column, label) in zip(ax.lines, LABELS.items(), strict=False):
        assert line.get_label() == label
        assert line.get_ydata().tolist() == table[column].tolist()
    assert ax.get_xscale() == "log"
    assert ax.lines[3].get_xdata() == [30, 30]
    assert "k = 30" in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("names", [["conv1", "conv2", "fc"], DEEP])
def test_one_bar_per_layer_in_order(names: list[str]) -> None:
    values = np.linspace(-0.5, 0.9, len(names))
    values[1] = np.nan
    ax = layer_correlations(correlations(names).assign(spearman=values)).axes[0]
    bars = [patch for patch in ax.patches if patch.get_height() == 0.7]
    assert [bar.get_width() for bar in bars] == np.nan_to_num(values).tolist()
    low, high = ax.get_xlim()
    assert low < -0.5
    assert high > 0.9
    (cross,) = [line for line in ax.lines if line.get_marker() == "x"]
    assert cross.get_ydata().tolist() == [1]


def test_many_layers_are_named_by_their_blocks() -> None:
    ax = layer_correlations(correlations(DEEP)).axes[0]
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == list(dict.fromkeys(name.rpartition(".")[0] for name in DEEP))
    assert ax.get_yticks()[:2].tolist() == [1, 4]  # the middle of three bars


def test_losses_add_up_whatever_their_sign() -> None:
    figure = relevance_losses(ledger(["a", "b"], bias=-0.1, zero=0.2), 0.05)
    assert figure.axes[0].get_ylim()[1] == pytest.approx(1.1 * 0.6)
    high = relevance_losses(ledger(["a"], bias=0.0, zero=0.0), 0.5)
    assert high.axes[0].get_ylim()[1] == pytest.approx(1.1 * 0.75)
