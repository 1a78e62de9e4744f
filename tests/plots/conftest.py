"""Rendering of figures, and names as runs bring them: long ones and odd ones among them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from tff.plots.style import STYLE


@pytest.fixture(scope="session")
def hard() -> list[str]:
    odd = ["x" * 80, "$a_b", r"\frac{", "<script>", "émile 猫"]
    return odd + [f"generator {i}" for i in range(7)]


@pytest.fixture(scope="session")
def svg() -> Callable[[Figure], str]:
    def render(figure: Figure) -> str:
        buffer = io.StringIO()
        with mpl.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # the font may lack a sign: a box is drawn
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    return render


@pytest.fixture(scope="session")
def is_empty() -> Callable[[Figure], bool]:
    """Whether a figure is the placeholder of `no_data`."""

    def says_no_data(figure: Figure) -> bool:
        return [text.get_text() for text in figure.axes[0].texts] == ["no data"]

    return says_no_data
