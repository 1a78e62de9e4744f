"""p-values of many tests, corrected for their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def benjamini_hochberg(p: Floats, axis: int = -1) -> Floats:
    """q-values: of the tests with q <= a, on average at most a share a is called falsely.

    Benjamini and Hochberg (JRSS B, 1995), as adjusted p-values: the q of the i-th smallest of m
    p-values is min over j >= i of p_j m / j. Holds for independent and for positively dependent
    tests (Benjamini and Yekutieli, 2001).

    Args:
        p: (...) p-values; NaN where there was no test, which is not counted.
        axis: along which the tests lie that belong together; all other axes are families apart.

    Returns:
        (...) float64 as p, each at least its p; NaN stays NaN.

    Raises:
        ValueError: a p-value lies outside [0, 1].
    """
    p = np.asarray(p, np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(
            f"p-values from {np.nanmin(p):g} to {np.nanmax(p):g}: they must lie in [0, 1]; "
            "pass p-values, not statistics or percentages"
        )
    rows = np.moveaxis(p, axis, -1)
    order = np.argsort(rows, axis=-1)  # NaN comes last
    rank = np.arange(1, rows.shape[-1] + 1)
    tests = (~np.isnan(rows)).sum(-1, keepdims=True)
    steps = np.take_along_axis(rows, order, -1) * (tests / rank)
    # fmin ignores the NaN behind the last test; where there is nothing but NaN, NaN remains.
    least = np.fmin.accumulate(steps[..., ::-1], axis=-1)[..., ::-1]
    q = np.empty_like(rows)
    np.put_along_axis(q, order, least, -1)
    return np.moveaxis(np.where(np.isnan(rows), np.nan, q), -1, axis)
