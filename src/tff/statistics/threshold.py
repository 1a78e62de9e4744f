"""Where a probability begins to mean "generated"."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

#: `half`: 0.5. `oracle`: the paper's, chosen on the test images themselves, hence optimistic.
ThresholdRule = Literal["half", "oracle"]


def threshold(
    rule: ThresholdRule, labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> float:
    """The threshold that a rule gives; an image is called generated when p > threshold.

    `oracle` maximises the geometric mean sqrt(TPR (1 - FPR)) along the ROC curve, the first maximum
    winning (released code of Chandrasegaran et al., ECCV 2022).

    Raises:
        ValueError: the rule is unknown.
    """
    if rule == "half":
        return 0.5
    if rule != "oracle":
        raise ValueError(f"threshold={rule}: unknown; there are half and oracle")
    false_positive, true_positive, thresholds = roc_curve(labels, probabilities)
    best = int(np.argmax(np.sqrt(true_positive * (1 - false_positive))))
    return float(thresholds[best])
