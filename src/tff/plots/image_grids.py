"""Heat maps as pictures, grids of images, and the collage of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.ndimage import median_filter

from tff.plots.style import MUTED, WIDTH, no_data, shorten, styled
from tff.types import Floats, Pixels

#: A picture (H, W, 3), and the line below it.
Picture = tuple[Pixels, str]
# A few pixels hold most of the relevance; this quantile at full strength keeps the rest visible.
_FULL = 0.99


def normalize(heat: Floats, blur: int = 1) -> Floats:
    """Scale a map (H, W) to [0, 1]: negative values to 0, the 99th percentile and above to 1.

    Args:
        heat: in any unit.
        blur: side in pixels of a median filter, which removes single bright pixels; 1 for none.
    """
    heat = heat.clip(min=0)
    if blur > 1:
        heat = median_filter(heat, size=blur)
    return np.clip(heat / _strength(heat), 0, 1)


def colorize(light: Floats) -> Pixels:
    """(H, W) in [0, 1] -> picture (H, W, 3), black at 0."""
    return _picture(mpl.colormaps["magma"](light))


def colorize_signed(heat: Floats) -> Pixels:
    """(H, W) in any unit -> picture (H, W, 3): positive red, negative blue, 0 white."""
    return _picture(mpl.colormaps["RdBu_r"](0.5 + 0.5 * heat / _strength(np.abs(heat))))


def overlay(image: Pixels, light: Floats) -> Pixels:
    """The image (H, W, 3) in dim gray, under the map (H, W) in [0, 1], dark red to yellow."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] / 255
    color = mpl.colormaps["hot"](0.25 + 0.55 * light)[..., :3]
    opacity = np.sqrt(light)[..., None]  # keeps weaker relevance visible
    return _picture((1 - opacity) * 0.6 * gray + opacity * color)


def shrink(values: Floats, side: int) -> Floats:
    """Shrink a map or a picture by area means until its longer side has at most `side` pixels."""
    scale = side / max(values.shape[:2])
    if scale >= 1:
        return values
    height, width = (max(1, round(scale * length)) for length in values.shape[:2])
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA))


def shrink_image(image: Pixels, side: int) -> Pixels:
    """Shrink an image (H, W, 3) likewise; rounded to uint8."""
    return np.asarray(shrink(image.astype(np.float64), side).round(), np.uint8)


def _strength(magnitude: Floats) -> float:
    """The value shown at full strength, never 0."""
    return float(np.quantile(magnitude, _FULL) or magnitude.max() or 1.0)


def _picture(colors: Floats) -> Pixels:
    return np.asarray((colors[..., :3] * 255).round(), np.uint8)


@styled
def image_grid(rows: Mapping[str, Sequence[Picture]]) -> Figure:
    """Labelled rows of pictures, a line of text below each; every pixel stays visible."""
    if not any(rows.values()):
        return no_data()
    columns = max(4, *(len(images) for images in rows.values()))
    cell = WIDTH / columns
    height = (cell + 0.46) * len(rows)
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(0.005, 0.2 / height, 0.995, 1 - 0.26 / height, 0.06, 0.46 / cell)
    for line, (label, images) in zip(grid, rows.items(), strict=True):
        line[0].set_title(shorten(label, 60), loc="left", fontsize=9.5)
        for ax in line:
            ax.set_axis_off()
        for ax, (image, text) in zip(line, images, strict=False):
            ax.imshow(image, interpolation="none", cmap="gray")
            below = shorten(text, max(6, 80 // columns))
            ax.text(0, -0.03, below, va="top", fontsize=8, color=MUTED, transform=ax.transAxes)
    return figure


_LARGE, _SMALL = 320, 128  # most pixels of a side that a patch, and its image, can show
_GAP, _TITLE, _TEXT = 0.04, 0.22, 0.17  # inches: between cells, above a row, below a patch
# Light inside dark is visible on any image. Not the white of the style, which dark pages exchange.
_FRAME = (("#0a0a0a", 2.4), ("#fdfdfd", 1.1))


@dataclass(frozen=True)
class Cutout:
    """A patch, the image that it was cut from, and where.

    Attributes:
        patch: (h, w, 3), or None where the image has none.
        image: (H, W, 3), small.
        frame: left, top, width and height of the patch in `image`.
        text: line below the patch.
    """

    patch: Pixels | None
    image: Pixels
    frame: tuple[float, float, float, float]
    text: str

    @classmethod
    def cut(cls, image: Pixels, box: tuple[int, int, int, int] | None, text: str) -> Cutout:
        """Cut a patch from an image (H, W, 3).

        Args:
            box: top, bottom, left, right in pixels, ends exclusive; None for no patch.
            text: line below the patch.
        """
        whole = shrink_image(image, _SMALL)
        if box is None:
            return cls(None, whole, (0, 0, 0, 0), text)
        top, bottom, left, right = box
        scale = whole.shape[1] / image.shape[1]
        frame = (scale * left, scale * top, scale * (right - left), scale * (bottom - top))
        patch = image[top:bottom, left:right]
        return cls(shrink_image(patch, _LARGE) if patch.size else None, whole, frame, text)


@styled
def collage(rows: Sequence[tuple[str, Sequence[Cutout]]]) -> Figure:
    """Rows of patches with a title each, in the given order; beside each patch its small image.

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
        """Square axes, `x` and `y` inches from the upper left corner of the figure."""
        at = (x / WIDTH, 1 - (y + size) / height, size / WIDTH, size / height)
        ax = figure.add_axes(at)
        ax.set_axis_off()
        ax.set_anchor("NW")
        return ax

    for i, (title, pieces) in enumerate(rows):
        y = i * line
        figure.text(0.002, 1 - (y + 0.06) / height, shorten(title, 70), va="top", fontsize=9.5)
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
            below = shorten(piece.text, max(6, 84 // columns))
            figure.text(x / WIDTH, 1 - (y + _TITLE + side + 0.03) / height, below, va="top",
                        fontsize=8, color=MUTED)  # fmt: skip
    return figure
