"""Patches of images, a row for each channel, with the place each was cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from tff.plots.axes import no_data, short
from tff.plots.heat import small_image
from tff.plots.style import INK, MUTED, WIDTH, styled

Pixels = NDArray[np.uint8]
_LARGE, _SMALL = 320, 128  # pixels of a side that can be seen at the size of a patch, of its image
_GAP, _TITLE, _TEXT = 0.04, 0.22, 0.17  # inches: between cells, above a row, below a patch
# Light within dark is seen on any image; not the white of a page, which a dark page exchanges.
_FRAME = (("#0a0a0a", 2.4), ("#fdfdfd", 1.1))


@dataclass(frozen=True)
class Piece:
    """A patch, the image that it was cut from, and where.

    Attributes:
        patch: (h, w, 3), or None where the image has none.
        image: (H, W, 3), small.
        frame: left, top, width and height of the patch in `image`.
        text: a line below.
    """

    patch: Pixels | None
    image: Pixels
    frame: tuple[float, float, float, float]
    text: str

    @classmethod
    def cut(cls, image: Pixels, box: tuple[int, int, int, int] | None, text: str) -> Piece:
        """Cut rows and columns `box` (top, bottom, left, right; ends exclusive) from an image."""
        whole = small_image(image, _SMALL)
        if box is None:
            return cls(None, whole, (0, 0, 0, 0), text)
        top, bottom, left, right = box
        scale = whole.shape[1] / image.shape[1]
        frame = (scale * left, scale * top, scale * (right - left), scale * (bottom - top))
        patch = image[top:bottom, left:right]
        return cls(small_image(patch, _LARGE) if patch.size else None, whole, frame, text)


@styled
def collage(rows: Sequence[tuple[str, Sequence[Piece]]]) -> Figure:
    """A row of patches for each title, in the given order; beside each patch its small image.

    Patches are enlarged to one size; every pixel stays visible.
    """
    if not any(pieces for _, pieces in rows):
        return no_data()
    columns = max(3, *(len(pieces) for _, pieces in rows))
    cell = WIDTH / columns
    side, thumb = 0.6 * cell, 0.4 * cell - 2 * _GAP
    line = _TITLE + side + _TEXT
    height = line * len(rows) + _GAP
    figure = Figure(figsize=(WIDTH, height))

    def axes(x: float, y: float, size: float) -> Axes:
        """A square whose upper left corner is so many inches from that of the figure."""
        at = (x / WIDTH, 1 - (y + size) / height, size / WIDTH, size / height)
        ax = figure.add_axes(at)
        ax.set_axis_off()
        ax.set_anchor("NW")
        return ax

    for i, (title, pieces) in enumerate(rows):
        y = i * line
        words(figure, 0.002, 1 - (y + 0.06) / height, short(title, 70), 9.5)
        for j, piece in enumerate(pieces):
            x = j * cell + 0.01 * WIDTH / columns
            large, little = axes(x, y + _TITLE, side), axes(x + side + _GAP, y + _TITLE, thumb)
            if piece.patch is None:
                large.text(0.5, 0.5, "no patch", ha="center", va="center", color=MUTED, fontsize=8)
            else:
                large.imshow(piece.patch, interpolation="none")
            little.imshow(piece.image, interpolation="none")
            left, top, wide, high = piece.frame
            if wide > 0 and high > 0:
                for color, width in _FRAME:
                    frame = Rectangle((left - 0.5, top - 0.5), wide, high, fill=False)
                    frame.set(edgecolor=color, linewidth=width, clip_on=False)
                    little.add_patch(frame)
            below = 1 - (y + _TITLE + side + 0.03) / height
            words(figure, x / WIDTH, below, short(piece.text, max(6, 84 // columns)), 8, MUTED)
    return figure


def words(figure: Figure, x: float, y: float, text: str, size: float, color: str = INK) -> None:
    """Text below and to the right of a place, in parts of the figure."""
    figure.text(x, y, text, va="top", fontsize=size, color=color)
