"""Figures as bytes: rendered, darkened, and written into an address."""

from __future__ import annotations

import base64
import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

from tff.plots.style import DARK, STYLE
from tff.safe_text import visible

# The reader's own sans-serif: the fonts that matplotlib names are found on few machines.
SANS = b"-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"


def render_svg(figure: Figure) -> bytes:
    """The figure as SVG, its text as text in the reader's font."""
    # XML may not hold control characters, not even escaped ones: a name with one in it would break
    # the figure.
    drawn = visible(_saved(figure, "svg", "Date").decode(), lines=True).encode()
    return re.sub(rb"'DejaVu Sans'[^;\"]*", SANS, drawn)


def render_png(figure: Figure) -> bytes:
    """The figure as PNG."""
    return _saved(figure, "png", "Software")


def _saved(figure: Figure, form: str, unwanted: str) -> bytes:
    """Leaves out what would differ between equal figures: the date, the version."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=form, dpi=200, metadata={unwanted: None})
    return buffer.getvalue()


def darken(svg: bytes) -> bytes:
    """The same figure for a dark page."""
    text = re.sub("#[0-9a-f]{6}", lambda color: DARK.get(color[0], color[0]), svg.decode())
    return text.encode()


def data_uri(picture: bytes, form: str) -> str:
    """The address that holds the picture itself; `form` is "svg+xml" or "png"."""
    return f"data:image/{form};base64,{base64.b64encode(picture).decode()}"
