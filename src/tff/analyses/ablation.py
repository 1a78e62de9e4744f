"""What the detector loses when a cue, such as color, is taken from the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from tff.analyses.base import Analysis
from tff.analyses.passes import Floats
from tff.analyses.subject import Subject
from tff.plots import comparison, distributions
from tff.statistics.bootstrap import Rows, interval, resamples
from tff.statistics.detection import detection, sigmoid
from tff.statistics.threshold import ThresholdRule, threshold
from tff.types import Result

ABOUT = """
The same test images are shown twice: as they are, and with the {cue} taken away. If the detector
relied on {cue}, its average precision (AP) falls and it grows less sure of generated images. Box
plots show the probability that it gives to generated images that it found suspicious before
(P of at least {suspicious:g}); the median drop is the difference of the two medians.
"""


class Cue(Protocol):
    """Takes a cue from images, and says which."""

    @property
    def cue(self) -> str: ...
    def __call__(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Ablation(Analysis):
    """AP, accuracies and the median probability drop without a cue, per generator.

    Args:
        ablation: what takes the cue away.
        threshold: see `Sensitivity`.
        suspicious: generated images below this probability are left out of boxes and medians, as
            in the released code.
    """

    ablation: Cue
    threshold: ThresholdRule = "half"
    suspicious: float = 0.2

    def answer(self, subject: Subject) -> Result:
        """Table `ablation`, a row a generator."""
        cue = self.ablation.cue
        plain = subject.evaluate().logits
        ablated = subject.evaluate(self.ablation).logits
        rows, long, boxes = [], [], {}
        for generator, at in subject.generators():
            row, sides, probabilities = self._row(
                subject, subject.labels[at], plain[at], ablated[at]
            )
            seen = generator in subject.seen
            rows.append({"generator": generator, "seen": seen, "cue": cue, **row})
            long += [{"generator": generator, "seen": seen, **side} for side in sides]
            boxes[generator] = dict(zip(("as it is", f"without {cue}"), probabilities, strict=True))
        table = pd.DataFrame(rows)
        drop = float(table["median_drop"].mean())
        unseen = table if table["seen"].all() else table[~table["seen"]]
        result = Result(
            f"What is lost without {cue}", ABOUT.format(cue=cue, suspicious=self.suspicious)
        )
        result.tables = {"ablation": table}
        result.findings = [
            f"Without {cue}, mean AP on {'the seen' if unseen is table else 'unseen'} generators "
            f"goes from {unseen['ap'].mean():.3f} to {unseen['ap_ablated'].mean():.3f}. The median "
            f"probability of generated images {'falls' if drop > 0 else 'rises'} by "
            f"{100 * abs(drop):.0f} percentage points (mean over generators)."
        ]
        result.scalars = {
            "ap": float(table["ap"].mean()),
            "ap_ablated": float(table["ap_ablated"].mean()),
            "median_drop": drop,
        }
        words = {"as it is": "as it is", "ablated": f"without {cue}"}
        result.figures = {
            "ablation_ap": comparison.grouped(
                pd.DataFrame(long), "generator", "input", "ap", "ap_low", "ap_high",
                "average precision", reference=0.5, labels=words,
            ),
            "ablation_boxes": distributions.boxes(
                boxes, 'probability of "generated"', reference=0.5
            ),
        }  # fmt: skip
        result.captions = {
            "ablation_ap": f"Average precision with and without {cue}.",
            "ablation_boxes": f"P of generated images, with and without {cue}.",
        }
        return result

    def _row(
        self, subject: Subject, labels: np.ndarray, plain: Floats, ablated: Floats
    ) -> tuple[dict[str, object], list[dict[str, object]], list[Floats]]:
        """The numbers of one generator; the same in long form for the figure; the boxes' values."""
        p, p_ablated = sigmoid(plain), sigmoid(ablated)
        cut = threshold(self.threshold, labels, p)
        draws = resamples(labels, subject.draws, subject.seed)
        before = detection(labels, plain, p > cut, draws)
        after = detection(labels, ablated, p_ablated > cut, draws)
        shown = (labels == 1) & (p >= self.suspicious)

        def drop(rows: Rows) -> Floats:
            kept = shown[rows]
            medians = [
                np.nanmedian(np.where(kept, q[rows], np.nan), axis=-1) for q in (p, p_ablated)
            ]
            return np.asarray(medians[0] - medians[1])

        some = bool(shown.any())
        low, high = interval(drop, draws[shown[draws].any(-1)]) if some else (np.nan, np.nan)
        row: dict[str, object] = {
            **before,
            **{_renamed(name): value for name, value in after.items()},
            "median_drop": float(drop(np.arange(len(labels))[None])[0]) if some else np.nan,
            "median_drop_low": low,
            "median_drop_high": high,
            "threshold": cut,
            "threshold_rule": self.threshold,
            "images": len(labels),
            "images_boxed": int(shown.sum()),
        }
        sides: list[dict[str, object]] = [
            {"input": "as it is", **before},
            {"input": "ablated", **after},
        ]
        return row, sides, [p[shown], p_ablated[shown]]


def _renamed(name: str) -> str:
    """`ap_low` -> `ap_ablated_low`."""
    for ending in ("_low", "_high"):
        if name.endswith(ending):
            return f"{name.removesuffix(ending)}_ablated{ending}"
    return f"{name}_ablated"
