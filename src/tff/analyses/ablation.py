"""What the detector loses when a cue, such as color, is taken from the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import (
    GROUPS,
    Evaluator,
    Scores,
    evaluators,
    summarize_generators,
)
from tff.analyses.engine.subject import Subject
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, evaluate_resamples
from tff.types import Floats, Ints, Result

ABOUT = """
The same test images are shown twice: as they are, and with the {cue} taken away. If the detector
relied on {cue}, its average precision (AP) falls and it grows less sure of generated images. The
interval of a drop is taken image by image, so it says whether the drop is more than chance. Box
plots show the probability that it gives to generated images that it found suspicious before
(P of at least {suspicious:g}); the median drop is the difference of the two medians.
"""


class Cue(Protocol):
    """Takes a cue from images, and says which."""

    @property
    def cue(self) -> str: ...
    def __call__(self, image: Tensor) -> Tensor: ...


MEASURES = ("ap", "real_accuracy", "fake_accuracy")


@dataclass(frozen=True)
class Ablation(Analysis):
    """AP, accuracies and the median probability drop without a cue, per generator.

    Args:
        ablation: what takes the cue away.
        suspicious: generated images below this probability are left out of boxes and medians, as
            in the released code.
    """

    ablation: Cue
    suspicious: float = 0.2

    def answer(self, subject: Subject) -> Result:
        """Tables `ablation`, a row a generator, and `ablation_summary`."""
        cue = self.ablation.cue
        plain = Scores.of(subject, subject.evaluate().logits)
        ablated = Scores.of(subject, subject.evaluate(self.ablation).logits)
        rows, long, boxes, drops = [], [], {}, {}
        for evaluator in evaluators(subject):
            before, after = evaluator.measure(plain), evaluator.measure(ablated)
            drops[evaluator.generator] = before["ap"] - after["ap"]
            first = {"generator": evaluator.generator, "seen": evaluator.seen}
            rows.append(
                {
                    **first,
                    "cue": cue,
                    "ablation": repr(self.ablation),
                    **_columns(before, ""),
                    **_columns(after, "_ablated"),
                    **_columns({m: before[m] - after[m] for m in MEASURES}, "_drop"),
                    **self._median_drop(evaluator, plain.p, ablated.p),
                    **evaluator.columns(),
                }
            )
            for side, measures in (("as it is", before), ("ablated", after)):
                long.append(first | {"input": side} | measures["ap"].columns("ap"))
            shown = self._shown(evaluator, plain.p)
            values = plain.p[evaluator.rows][shown], ablated.p[evaluator.rows][shown]
            boxes[evaluator.generator] = dict(
                zip(("as it is", f"without {cue}"), values, strict=True)
            )
        table = pd.DataFrame(rows)
        overall = summarize_generators(subject, drops, smallest=False)
        result = Result(
            f"What is lost without {cue}", ABOUT.format(cue=cue, suspicious=self.suspicious)
        )
        summary = [{"where": w, "cue": cue} | e.columns("ap_drop") for w, e in overall.items()]
        result.tables = {"ablation": table, "ablation_summary": pd.DataFrame(summary)}
        median = float(table["median_drop"].mean())
        for where, drop in overall.items():
            if where == "unseen_worst":
                continue
            of_where = table[table["seen"] == (where == "seen")]
            sure = "" if drop.low > 0 or drop.high < 0 else ", which chance alone may do"
            result.findings.append(
                f"Without {cue}, AP on {GROUPS[where]} goes from {of_where['ap'].mean():.3f} to "
                f"{of_where['ap_ablated'].mean():.3f}: a drop of {drop.value:.3f} ({drop.low:.3f} "
                f"to {drop.high:.3f}){sure}."
            )
        if np.isfinite(median):
            boxed, suspected = int(table["median_drop"].notna().sum()), table["images_boxed"].sum()
            result.findings.append(
                f"The median probability of generated images with P of at least "
                f"{self.suspicious:g} {'falls' if median > 0 else 'rises'} by "
                f"{100 * abs(median):.0f} percentage points (mean over {boxed} of {len(table)} "
                f"generators that have such images, {suspected} in all)."
            )
        else:
            result.warnings.append(
                f"No generated image has P of at least {self.suspicious:g}, so there are no boxes "
                "and no median drop; lower analysis.ablation.suspicious."
            )
        result.scalars = {
            "ap": float(table["ap"].mean()),
            "ap_ablated": float(table["ap_ablated"].mean()),
            "median_drop": median,
            **{f"{where}_ap_drop": drop.value for where, drop in overall.items()},
        }
        words = {"as it is": "as it is", "ablated": f"without {cue}"}
        result.figures = {
            "ablation_ap": grouped.grouped_points(
                pd.DataFrame(long), "generator", "input", "ap", "ap_low", "ap_high",
                "average precision", reference=0.5, labels=words,
            ),
            "ablation_boxes": grouped.box_plot(
                boxes, 'probability of "generated"', reference=0.5
            ),
        }  # fmt: skip
        result.captions = {
            "ablation_ap": f"Average precision with and without {cue}.",
            "ablation_boxes": f"P of generated images, with and without {cue}.",
        }
        return result

    def _shown(self, evaluator: Evaluator, p: Floats) -> np.ndarray:
        """Which images of a generator boxes and medians are of."""
        return np.asarray((evaluator.labels == 1) & (p[evaluator.rows] >= self.suspicious))

    def _median_drop(
        self, evaluator: Evaluator, plain: Floats, ablated: Floats
    ) -> dict[str, object]:
        """The difference of the medians, by the same images before and after."""
        shown = self._shown(evaluator, plain)
        pair = plain[evaluator.rows], ablated[evaluator.rows]

        def drop(rows: Ints) -> Floats:
            kept = shown[rows]
            before, after = (np.nanmedian(np.where(kept, p[rows], np.nan), axis=-1) for p in pair)
            return np.asarray(before - after)

        estimate = Estimate(np.nan, np.full(1, np.nan))
        if shown.any():
            everything = np.arange(len(shown))[None]
            drawn = evaluator.resamples[shown[evaluator.resamples].any(-1)]
            estimate = Estimate(float(drop(everything)[0]), evaluate_resamples(drop, drawn))
        return {**estimate.columns("median_drop"), "images_boxed": int(shown.sum())}


def _columns(measures: dict[str, Estimate], ending: str) -> dict[str, float]:
    """`ap`, `ap_low`, ... or `ap_ablated`, `ap_ablated_low`, ..."""
    return {c: v for m in MEASURES for c, v in measures[m].columns(m + ending).items()}
