"""How well scores tell generated from real images: AP and accuracies with their intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tff.statistics.average_precision import average_precision
from tff.statistics.bootstrap import Rows, interval

Floats = NDArray[np.float64]


def sigmoid(logits: Floats) -> Floats:
    """Probability of "generated" from logits, without overflow."""
    p: Floats = np.exp(-np.logaddexp(0, -logits))
    return p


def detection(
    labels: NDArray[np.int64], scores: Floats, called: NDArray[np.bool_], rows: Rows
) -> Mapping[str, float]:
    """AP and accuracies of one detector on one set of images.

    Args:
        labels: (N,) 1 generated, 0 real.
        scores: (N,) of any scale, higher means generated.
        called: (N,) whether the image is called generated.
        rows: resampled rows (draws, N) for the intervals.

    Returns:
        `ap`, `real_accuracy`, `fake_accuracy`, fractions in [0, 1] (NaN without images of that
        kind), each with `..._low` and `..._high`.
    """
    right = called == (labels == 1)

    def ap(at: Rows) -> Floats:
        return average_precision(labels[at], scores[at])

    def accuracy(label: int) -> tuple[float, tuple[float, float]]:
        def of(at: Rows) -> Floats:
            mine = labels[at] == label
            with np.errstate(invalid="ignore"):
                rate: Floats = (right[at] & mine).sum(-1) / mine.sum(-1)
            return rate

        return float(of(everything)[0]), interval(of, rows)

    everything = np.arange(len(labels))[None]
    values = {
        "ap": (float(ap(everything)[0]), interval(ap, rows)),
        "real_accuracy": accuracy(0),
        "fake_accuracy": accuracy(1),
    }
    return {
        column: number
        for name, (value, (low, high)) in values.items()
        for column, number in ((name, value), (f"{name}_low", low), (f"{name}_high", high))
    }
