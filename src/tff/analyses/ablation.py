"""Ablation: loss of detection when a cue, such as color, is removed from the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import (
    MAIN_MEASURES,
    Scores,
    describe_drop,
    describe_resamples,
    estimate_columns,
    evaluators,
    group_labels,
    summarize_generators,
)
from tff.analyses.engine.passes import CueRemoval
from tff.analyses.engine.subject import Subject
from tff.options import checked, number
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, count_draws, evaluate_resamples
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
            # Generated images that the detector suspects, for box plots and medians.
            p, p_ablated = plain.p[evaluator.rows], ablated.p[evaluator.rows]
            boxed = (evaluator.labels == 1) & (p >= self.suspicious)
            rows.append(
                first
                | {"cue": cue, "ablation": repr(self.ablation)}
                | estimate_columns(before, MAIN_MEASURES)
                | estimate_columns(after, MAIN_MEASURES, "_ablated")
                | estimate_columns(lost, MAIN_MEASURES, "_drop")
                | _median_drop(boxed, p, p_ablated, evaluator.resamples).columns("median_drop")
                | {"images_boxed": int(boxed.sum())}
                | evaluator.columns()
            )
            for kind, measures in (("unchanged", before), ("ablated", after)):
                points.append(first | {"input": kind} | measures["ap"].columns("ap"))
            boxes[evaluator.generator] = {
                "unchanged": p[boxed], f"without {cue}": p_ablated[boxed],
            }  # fmt: skip
        table = pd.DataFrame(rows)
        overall = summarize_generators(subject, drops, smallest=False)
        about = ABOUT.format(cue=cue, suspicious=self.suspicious)
        result = Result(f"What is lost without {cue}", about)
        summary = [{"where": w, "cue": cue} | e.columns("ap_drop") for w, e in overall.items()]
        result.tables = {"ablation": table, "ablation_summary": pd.DataFrame(summary)}
        self._add_findings(result, table, overall, group_labels(subject))
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
            "ablation_ap": f"Average precision with and without {cue}, with 95 % intervals. "
            f"{describe_resamples(subject)}",
            "ablation_boxes": f"P of generated images, with and without {cue}.",
        }
        return result

    def _add_findings(
        self,
        result: Result,
        table: pd.DataFrame,
        overall: dict[str, Estimate],
        labels: dict[str, str],
    ) -> None:
        """Findings, scalars and warnings; group names from `group_labels`."""
        cue, median = self.ablation.cue, float(table["median_drop"].mean())
        for where, drop in overall.items():
            if where == "unseen_worst":
                continue
            part = table[table["seen"] == (where == "seen")]
            result.findings.append(
                f"Without {cue}, AP on {labels[where]} goes from {part['ap'].mean():.3f} to "
                f"{part['ap_ablated'].mean():.3f}: it {describe_drop(drop)}."
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


def _median_drop(boxed: NDArray[np.bool_], p: Floats, ablated: Floats, resamples: Ints) -> Estimate:
    """Difference of the medians of p and of ablated, both (n,), over the boxed images (n,)."""
    # The last one stands for the number that fills up resamples, see `draw_resamples`.
    columns = [np.append(np.where(boxed, values, np.nan), np.nan) for values in (p, ablated)]

    def drop(rows: Ints) -> Floats:
        before, after = (np.nanmedian(values[rows], axis=-1) for values in columns)
        return np.asarray(before - after)

    if not boxed.any():
        return Estimate(np.nan, np.full(1, np.nan))
    value = float(drop(np.arange(len(boxed))[None])[0])
    known = (count_draws(resamples, len(boxed)) @ boxed) > 0
    return Estimate(value, evaluate_resamples(drop, resamples[known]))
