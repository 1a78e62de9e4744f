"""Figures for the page: the reader's own font, colors of a dark page, one address."""

from __future__ import annotations

import base64

import numpy as np

from tff.plots.grouped import box_plot
from tff.plots.style import DARK
from tff.report.page import darken, data_uri, render_png, render_svg

FIGURE = box_plot({"a": {"color": np.arange(3)}}, "p")


def test_svg_names_fonts_that_readers_have() -> None:
    assert b"Segoe UI" in render_svg(FIGURE)


def test_dark_figure_has_no_color_of_the_light_one() -> None:
    light = render_svg(FIGURE).decode()
    dark = darken(light.encode()).decode()
    assert any(color in light for color in DARK)
    assert not any(color in dark for color in DARK)


def test_address_holds_the_picture() -> None:
    png = render_png(FIGURE)
    address = data_uri(png, "png")
    assert address.startswith("data:image/png;base64,")
    assert base64.b64decode(address.split(",")[1]) == png
