"""Whether probabilities mean what they say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 15


def expected_calibration_error(
    labels: NDArray[np.int64], probabilities: Floats, bins: int = BINS
) -> Floats:
    """Mean distance of the probability of "generated" from the share of generated images.

    Over images in bins of equal width of the probability (Naeini et al., AAAI 2015; Guo et al.,
    ICML 2017): sum over bins of |sum of (p - label)| / N. The last bin holds 1.

    Args:
        labels: (..., N), 1 generated, 0 real.
        probabilities: (..., N) in [0, 1].
        bins: number of bins.

    Returns:
        (...,) in [0, 1]; NaN without images and where a probability is NaN.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    labels, p = np.broadcast_arrays(labels, checked(probabilities))
    sets, images = int(np.prod(p.shape[:-1])), p.shape[-1]
    place = bin_of(p, bins).reshape(sets, images) + bins * np.arange(sets)[:, None]
    gaps = np.bincount(place.ravel(), (p - labels).ravel(), minlength=bins * sets)
    error = np.abs(gaps.reshape(*p.shape[:-1], bins)).sum(-1)
    return np.asarray(error / (images or np.nan))


def brier_score(labels: NDArray[np.int64], probabilities: Floats) -> Floats:
    """Mean squared distance of the probability from the label (Brier, Monthly Weather Review 1950).

    Args:
        labels: (..., N), 1 generated, 0 real.
        probabilities: (..., N) in [0, 1].

    Returns:
        (...,) in [0, 1]; NaN without images and where a probability is NaN.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    squares = (checked(probabilities) - labels) ** 2
    return np.asarray(squares.sum(-1) / (squares.shape[-1] or np.nan))


def bin_of(probabilities: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """Number of the bin, 0 to bins - 1, in which each probability lies; of any shape."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges, probabilities, side="right") - 1
    return np.minimum(place, bins - 1)


def checked(probabilities: Floats) -> Floats:
    """The same as float64.

    Raises:
        ValueError: a probability lies outside [0, 1]; NaN may stand for one that is unknown.
    """
    p = np.asarray(probabilities, np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(
            f"probabilities from {np.nanmin(p):g} to {np.nanmax(p):g}: they must lie in [0, 1]; "
            "map logits with `sigmoid` first"
        )
    return p
