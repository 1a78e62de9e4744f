"""Accuracies of one detector at each of the thresholds that are in use, side by side."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

from tff.analyses.judge import Judge, Scores
from tff.statistics.detection import ThresholdRule

RULES: tuple[ThresholdRule, ...] = ("half", "validation", "oracle")


def at_each_threshold(judge: Judge, scores: Scores) -> list[dict[str, object]]:
    """A row a rule: the threshold, and accuracies with Wilson's 95 % intervals (1927).

    `validation` and `oracle` are taken from the detector with nothing dropped, as in the released
    code; `oracle` from the very images that are judged, hence optimistic.
    """
    rows: list[dict[str, object]] = []
    p = scores.p[judge.at]
    for rule in RULES:
        cut = judge.cut(rule)
        row: dict[str, object] = {"threshold_rule": rule, "threshold": cut}
        for name, label in (("real_accuracy", 0), ("fake_accuracy", 1)):
            mine = judge.labels == label
            right, total = int(((p > cut) == (label == 1))[mine].sum()), int(mine.sum())
            low = high = np.nan
            if total:
                low, high = binomtest(right, total).proportion_ci(method="wilson")
            value = right / total if total else np.nan
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return rows
