"""Grids of images survive rows of unequal length and none at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from tff.plots.image_grids import image_grid

IMAGE = np.zeros((4, 4, 3), np.uint8)
CASES: dict[str, Callable[[list[str]], Figure]] = {
    "images, one": lambda _: image_grid({"a": [(IMAGE, "")]}),
    "images, twelve": lambda hard: image_grid(
        {n: [(IMAGE, n)] * (i % 4) for i, n in enumerate(hard)}
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_survives_and_is_reproducible(
    case: str, hard: list[str], svg: Callable[[Figure], str]
) -> None:
    first = svg(CASES[case](hard))
    assert "no data" not in first
    assert first == svg(CASES[case](hard))


@pytest.mark.parametrize("rows", [{}, {"a": []}])
def test_without_data_says_so(
    rows: dict[str, list[tuple[np.ndarray, str]]], svg: Callable[[Figure], str]
) -> None:
    assert "no data" in svg(image_grid(rows))
