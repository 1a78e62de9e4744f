"""Figures of small images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tff.plots.axes import no_data, short
from tff.plots.style import MUTED, WIDTH, styled


@styled
def image_grid(rows: Mapping[str, Sequence[tuple[NDArray[np.uint8], str]]]) -> Figure:
    """Labelled rows of small (H, W, 3) images, a line below each; every pixel stays visible."""
    if not any(rows.values()):
        return no_data()
    columns = max(4, *(len(images) for images in rows.values()))
    cell = WIDTH / columns
    height = (cell + 0.46) * len(rows)
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(0.005, 0.2 / height, 0.995, 1 - 0.26 / height, 0.06, 0.46 / cell)
    for line, (label, images) in zip(grid, rows.items(), strict=True):
        line[0].set_title(short(label, 60), loc="left", fontsize=9.5)
        for ax in line:
            ax.set_axis_off()
        for ax, (image, text) in zip(line, images, strict=False):
            ax.imshow(image, interpolation="none", cmap="gray")
            ax.text(
                0,
                -0.03,
                short(text, max(6, 80 // columns)),
                va="top",
                fontsize=8,
                color=MUTED,
                transform=ax.transAxes,
            )
    return figure
