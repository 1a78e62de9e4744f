"""Ablation: what the detector loses when a cue, such as color, is removed from the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import (
    GROUPS,
    MAIN_MEASURES,
    Evaluator,
    Scores,
    estimate_columns,
    evaluators,
    summarize_generators,
)
from tff.analyses.engine.passes import CueRemoval
from tff.analyses.engine.subject import Subject
from tff.options import checked, number
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, evaluate_resamples
from tff.types import Floats, Ints, Result

ABOUT = """
The detector sees the same test images twice: unchanged, and without {cue}. If it relies on {cue},
its average precision (AP) falls and it becomes less sure of generated images. Intervals of drops
are paired by image, so they tell whether a drop is more than chance. Box plots show the probability
of "generated" (P) for the generated images that have a P of at least {suspicious:g} when unchanged;
the median drop is the difference of the two medians.
"""


@dataclass(frozen=True)
@checked("analysis.ablation")
class Ablation(Analysis):
    """AP, accuracies and the median probability drop without a cue, per generator.

    Args:
        ablation: removes the cue.
        suspicious: box plots and medians skip generated images whose probability is lower than
            this when they are unchanged, as in the released code.
    """

    ablation: CueRemoval
    suspicious: Annotated[float, number(least=0)] = 0.2

    def answer(self, subject: Subject) -> Result:
        """Tables `ablation`, one row per generator, and `ablation_summary`."""
        cue = self.ablation.cue
        plain = Scores.of(subject, subject.evaluate().logits)
        ablated = Scores.of(subject, subject.evaluate(self.ablation).logits)
        rows, points, boxes, drops = [], [], {}, {}
        for evaluator in evaluators(subject):
            before, after = evaluator.measure(plain), evaluator.measure(ablated)
            lost = {name: before[name] - after[name] for name in MAIN_MEASURES}
            drops[evaluator.generator] = lost["ap"]
            first = {"generator": evaluator.generator, "seen": evaluator.seen}
            rows.append(
                {
                    **first,
                    "cue": cue,
                    "ablation": repr(self.ablation),
                    **estimate_columns(before, MAIN_MEASURES),
                    **estimate_columns(after, MAIN_MEASURES, "_ablated"),
                    **estimate_columns(lost, MAIN_MEASURES, "_drop"),
                    **self._median_drop(evaluator, plain.p, ablated.p),
                    **evaluator.columns(),
                }
            )
            for kind, measures in (("unchanged", before), ("ablated", after)):
                points.append(first | {"input": kind} | measures["ap"].columns("ap"))
            boxed = evaluator.rows[self._boxed(evaluator, plain.p)]
            boxes[evaluator.generator] = {
                "unchanged": plain.p[boxed],
                f"without {cue}": ablated.p[boxed],
            }
        table = pd.DataFrame(rows)
        overall = summarize_generators(subject, drops, smallest=False)
        result = Result(
            f"What is lost without {cue}", ABOUT.format(cue=cue, suspicious=self.suspicious)
        )
        summary = [{"where": w, "cue": cue} | e.columns("ap_drop") for w, e in overall.items()]
        result.tables = {"ablation": table, "ablation_summary": pd.DataFrame(summary)}
        self._add_findings(result, table, overall)
        result.figures = {
            "ablation_ap": grouped.grouped_points(
                pd.DataFrame(points), "generator", "input", "ap", "ap_low", "ap_high",
                "average precision", reference=0.5,
                labels={"unchanged": "unchanged", "ablated": f"without {cue}"},
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

    def _boxed(self, evaluator: Evaluator, p: Floats) -> np.ndarray:
        """(n,) which images of a generator stand in box plots and medians."""
        return np.asarray((evaluator.labels == 1) & (p[evaluator.rows] >= self.suspicious))

    def _median_drop(
        self, evaluator: Evaluator, plain: Floats, ablated: Floats
    ) -> dict[str, object]:
        """Columns of the difference of the medians, both over the same images."""
        boxed = self._boxed(evaluator, plain)
        pair = plain[evaluator.rows], ablated[evaluator.rows]

        def drop(rows: Ints) -> Floats:
            kept = boxed[rows]
            before, after = (np.nanmedian(np.where(kept, p[rows], np.nan), axis=-1) for p in pair)
            return np.asarray(before - after)

        estimate = Estimate(np.nan, np.full(1, np.nan))
        if boxed.any():
            everything = np.arange(len(boxed))[None]
            resamples = evaluator.resamples[boxed[evaluator.resamples].any(-1)]
            estimate = Estimate(float(drop(everything)[0]), evaluate_resamples(drop, resamples))
        return {**estimate.columns("median_drop"), "images_boxed": int(boxed.sum())}

    def _add_findings(
        self, result: Result, table: pd.DataFrame, overall: dict[str, Estimate]
    ) -> None:
        """Findings, scalars and warnings."""
        cue, median = self.ablation.cue, float(table["median_drop"].mean())
        for where, drop in overall.items():
            if where == "unseen_worst":
                continue
            part = table[table["seen"] == (where == "seen")]
            doubt = "" if drop.low > 0 or drop.high < 0 else ", not significant"
            result.findings.append(
                f"Without {cue}, AP on {GROUPS[where]} goes from {part['ap'].mean():.3f} to "
                f"{part['ap_ablated'].mean():.3f}: a drop of {drop.value:.3f} ({drop.low:.3f} "
                f"to {drop.high:.3f}){doubt}."
            )
        if np.isfinite(median):
            n_generators, n_images = table["median_drop"].notna().sum(), table["images_boxed"].sum()
            result.findings.append(
                f"The median probability of generated images with P of at least "
                f"{self.suspicious:g} {'falls' if median > 0 else 'rises'} by "
                f"{100 * abs(median):.0f} percentage points (mean over {n_generators} of "
                f"{len(table)} generators that have such images, {n_images} images in all)."
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
