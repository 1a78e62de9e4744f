"""What runs bring to figures: a dozen names, long ones and odd ones among them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from tff.plots.style import STYLE


@pytest.fixture
def hard() -> list[str]:
    odd = ["x" * 80, "$a_b", r"\frac{", "<script>", "émile 猫"]
    return odd + [f"generator {i}" for i in range(7)]


@pytest.fixture
def svg() -> Callable[[Figure], str]:
    def render(figure: Figure) -> str:
        buffer = io.StringIO()
        with mpl.rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # the font may lack a sign: a box is drawn
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    return render
