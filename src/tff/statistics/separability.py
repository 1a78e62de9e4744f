"""How well a trivial classifier tells two kinds of rows apart by a few columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from tff.statistics.correlated_areas import components

_FOLDS = 5


class Area(NamedTuple):
    """Area under the ROC curve with the ends of its 95 % interval; NaN with under two of a kind."""

    auc: float
    low: float
    high: float


def separability(columns: pd.DataFrame, labels: NDArray[np.int64], seed: int = 0) -> Area:
    """AUC of a shallow decision tree, each row judged by a tree that has not seen it.

    Three questions one after the other: what such a tree finds, anything finds.

    Args:
        columns: (N, n) numbers, or words, which are asked for one by one.
        labels: (N,) 0 or 1.
        seed: of the division into folds.
    """
    folds = min(_FOLDS, int(np.bincount(labels, minlength=2).min()))
    if folds < 2:
        return Area(np.nan, np.nan, np.nan)
    numbers = pd.get_dummies(columns).to_numpy(np.float64)
    tree = DecisionTreeClassifier(max_depth=3, random_state=seed)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    scores = cross_val_predict(tree, numbers, labels, cv=split, method="predict_proba")[:, 1]
    return area(labels, scores)


def area(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> Area:
    """AUC and its interval (DeLong et al., Biometrics 1988), at least two rows of each label."""
    one, zero = scores[labels == 1], scores[labels == 0]
    beaten, beating = components(one, zero)
    auc = float(roc_auc_score(labels, scores))
    error = np.sqrt(beaten.var(ddof=1) / len(one) + beating.var(ddof=1) / len(zero))
    reach = float(norm.ppf(0.975) * error)
    return Area(auc, max(0.0, auc - reach), min(1.0, auc + reach))
