"""Our numbers for the cells that published tables have."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.sensitivity import Sensitivity
from tff.analyses.subject import Subject
from tff.published.tables import Ours
from tff.statistics.bootstrap import Estimate, Floats, Resamples, evaluated, resamples

#: (what, generator, metric) -> our numbers: several if measured in several ways.
Numbers = dict[tuple[str, str, str], list[Ours]]
#: Table -> what is taken from it: accuracies by every threshold, whatever the subject's is.
_SENSITIVITY = {
    "sensitivity": ("ap",),
    "sensitivity_thresholds": ("real_accuracy", "fake_accuracy"),
}


def numbers_of(subject: Subject) -> Numbers:
    """From the analyses whose tables were published, and from the passes that they share.

    AP and thresholds are of float32 probabilities, as in all of these, whatever the protocol of the
    subject. Accuracies over all images, as Wang et al. print them, are at P > 0.5.
    """
    numbers: Numbers = {}
    subject = copy.copy(subject)  # which shares its passes, and knows what was computed so far
    scoring = replace(subject.options.scoring, scores="probabilities")
    subject.options = replace(subject.options, scoring=scoring)
    sensitivity = Sensitivity()(subject).tables
    for name, metrics in _SENSITIVITY.items():
        for row in sensitivity[name].to_dict("records"):
            what = "baseline" if row["dropout"] == "none" else str(row["dropout"])
            k = 0 if what == "baseline" else int(row["k"])
            for metric in metrics:
                rule = "" if metric == "ap" else str(row["threshold_rule"])
                number = _number(row, metric, rule, k)
                numbers.setdefault((what, str(row["generator"]), metric), []).append(number)
    cue = Grayscale()
    table = Ablation(cue)(subject).tables["ablation"]
    for row in table[table["cue"] == cue.cue].to_dict("records"):
        key = ("gray", str(row["generator"]), "ap")
        numbers.setdefault(key, []).append(_number(row, "ap_ablated"))
    logits = subject.evaluate().logits
    for generator, at in subject.generators():
        labels = subject.labels[at]
        right = (logits[at] > 0) == (labels == 1)
        drawn = evaluated(_Share(right), resamples(labels, subject.draws, subject.seed))
        share = Estimate(float(right.mean()), drawn)
        half = Ours(share.value, share.low, share.high, threshold="half")
        numbers["baseline", generator, "accuracy"] = [half]
    return numbers


@dataclass(frozen=True)
class _Share:
    """Resampled rows (D, N) -> the share that is true, (D,)."""

    of: NDArray[np.bool_]

    def __call__(self, rows: Resamples) -> Floats:
        share: Floats = self.of[rows].mean(-1)
        return share


def _number(row: Mapping[Any, Any], column: str, threshold: str = "", k: int = 0) -> Ours:
    low, high = (float(row.get(f"{column}_{end}", np.nan)) for end in ("low", "high"))
    return Ours(float(row[column]), low, high, threshold, k)
