"""Boxes and densities survive empty, single, missing and unequal samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from tff.plots.grouped import box_plot, histograms

NAN = np.full(5, np.nan)
CASES: dict[str, Callable[[list[str]], Figure]] = {
    "boxes, one": lambda _: box_plot({"a": {"color": np.array([0.5])}}, "p"),
    "boxes, twelve": lambda hard: box_plot({n: {"a": NAN, "b": np.arange(3)} for n in hard}, "p"),
    "boxes, unequal": lambda _: box_plot({"a": {"x": NAN[:0]}, "b": {"y": np.ones(3)}}, "p"),
    "densities, one": lambda _: histograms([("a", np.ones(1), np.ones(1))]),
    "densities, twelve": lambda hard: histograms([(n, NAN, np.arange(9.0)) for n in hard]),
    "densities, missing": lambda _: histograms([("a", NAN, NAN)]),
}


@pytest.mark.parametrize("case", CASES)
def test_survives_and_is_reproducible(
    case: str, hard: list[str], svg: Callable[[Figure], str]
) -> None:
    first = svg(CASES[case](hard))
    assert "no data" not in first
    assert first == svg(CASES[case](hard))


@pytest.mark.parametrize(
    "draw", [lambda: box_plot({}, "p"), lambda: box_plot({"a": {}}, "p"), lambda: histograms([])]
)
def test_without_data_says_so(draw: Callable[[], Figure], svg: Callable[[Figure], str]) -> None:
    assert "no data" in svg(draw())
