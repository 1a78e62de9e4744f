"""Maps of relevance as pictures: bare, with their sign, and over the image they belong to."""

from __future__ import annotations

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

Map = NDArray[np.float64]
Pixels = NDArray[np.uint8]
# A few pixels hold most of the relevance; this quantile at full strength keeps the rest visible.
_FULL = 0.99


def brightness(heat: Map, blur: int = 1) -> Map:
    """(H, W) -> the same in [0, 1]: negative values at 0, the 99th percentile and above at 1.

    Args:
        heat: in any unit.
        blur: side in pixels of a median filter, 1 for none; takes single bright pixels away.
    """
    heat = heat.clip(min=0)
    if blur > 1:
        heat = median_filter(heat, size=blur)
    return np.clip(heat / _strength(heat), 0, 1)


def bare(light: Map) -> Pixels:
    """(H, W) in [0, 1] -> (H, W, 3) picture, black where there is nothing."""
    return _picture(mpl.colormaps["magma"](light))


def signed(heat: Map) -> Pixels:
    """(H, W) in any unit -> (H, W, 3) picture: red for positive, blue for negative, white for 0."""
    return _picture(mpl.colormaps["RdBu_r"](0.5 + 0.5 * heat / _strength(np.abs(heat))))


def overlay(image: Pixels, light: Map) -> Pixels:
    """The image (H, W, 3) in dim gray, and over it the map (H, W) in [0, 1], dark red to yellow."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] / 255
    color = mpl.colormaps["hot"](0.25 + 0.55 * light)[..., :3]
    opacity = np.sqrt(light)[..., None]  # so that weaker relevance is seen, too
    return _picture((1 - opacity) * 0.6 * gray + opacity * color)


def small(values: Map, side: int) -> Map:
    """A map or a picture whose longer side is at most `side` pixels, by means over areas."""
    scale = side / max(values.shape[:2])
    if scale >= 1:
        return values
    height, width = (max(1, round(scale * length)) for length in values.shape[:2])
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA))


def small_image(image: Pixels, side: int) -> Pixels:
    """The image (H, W, 3), its longer side at most `side` pixels."""
    return np.asarray(small(image.astype(np.float64), side).round(), np.uint8)


def _strength(magnitude: Map) -> float:
    """What is shown at full strength, never 0."""
    return float(np.quantile(magnitude, _FULL) or magnitude.max() or 1.0)


def _picture(colors: Map) -> Pixels:
    return np.asarray((colors[..., :3] * 255).round(), np.uint8)
