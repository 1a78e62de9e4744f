"""Where a probability begins to mean "generated"."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

#: `half`: 0.5. `validation`: the best one on the validation images of the seen generator. `oracle`:
#: the paper's, the best one on the test images themselves, hence optimistic.
ThresholdRule = Literal["half", "validation", "oracle"]


def best_threshold(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """The threshold with the largest sqrt(TPR (1 - FPR)) along the ROC curve, the first of several.

    An image is called generated when p > threshold (released code of Chandrasegaran et al., ECCV
    2022).

    Args:
        labels: (N,) 1 generated, 0 real.
        probabilities: (N,).
    """
    false_positive, true_positive, thresholds = roc_curve(labels, probabilities)
    best = int(np.argmax(np.sqrt(true_positive * (1 - false_positive))))
    return float(thresholds[best])
