"""The figure of lost relevance survives one row, no row, nothing lost, twelve long names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tff.plots.channels import relevance_losses


def ledger(names: Sequence[str], bias: float = 0.01, zero: float = np.nan) -> pd.DataFrame:
    return pd.DataFrame({"operation": names, "lost_to_bias": bias, "lost_at_zero": zero})


@pytest.mark.parametrize("names", [1, 12])
def test_survives_and_is_reproducible(
    names: int, hard: list[str], svg: Callable[[Figure], str]
) -> None:
    for lost in (0.0, 0.2, -3.0):
        first = svg(relevance_losses(ledger(hard[:names], lost), 0.05))
        assert first == svg(relevance_losses(ledger(hard[:names], lost), 0.05))


def test_nothing_to_show(svg: Callable[[Figure], str]) -> None:
    assert "no data" in svg(relevance_losses(ledger([]), 0.05))


def test_losses_add_up_whatever_their_sign() -> None:
    figure = relevance_losses(ledger(["a", "b"], bias=-0.1, zero=0.2), 0.05)
    assert figure.axes[0].get_ylim()[1] == pytest.approx(1.1 * 0.6)
    high = relevance_losses(ledger(["a"], bias=0.0, zero=0.0), 0.5)
    assert high.axes[0].get_ylim()[1] == pytest.approx(1.1 * 0.75)
