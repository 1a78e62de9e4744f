"""Does the detector need these channels? It is tested with them dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tff.analyses.base import Analysis
from tff.analyses.passes import Floats
from tff.analyses.subject import Subject
from tff.plots import comparison
from tff.statistics.average_precision import average_precision
from tff.statistics.bootstrap import resamples
from tff.statistics.detection import detection, sigmoid
from tff.statistics.threshold import ThresholdRule, threshold
from tff.types import Result

ABOUT = """
If the top channels really carry what the detector looks for, it must fail without them. Their
output is set to zero and the detector is tested again, on the generator that it was trained on and
on generators that it never saw. Two controls take away as many channels elsewhere: random ones, and
those with the least omega.

AP is average precision: 1 is perfect; a detector that guesses gets the share of generated images
(here mostly 0.5). Whiskers are 95 % bootstrap intervals over the images.
"""
WORDS = {
    "none": "nothing dropped",
    "top_k": "top k dropped",
    "random_k": "random k dropped",
    "low_k": "lowest k dropped",
}


@dataclass(frozen=True)
class Sensitivity(Analysis):
    """AP and accuracies with the top k, k random and the lowest k channels dropped.

    Args:
        random_draws: sets of random channels, none of them in the top k; the mean of their
            probabilities is scored, as in the released code.
        threshold: where "generated" begins: `half` or `oracle`, the latter from the undropped
            detector on the same test images, hence optimistic.
    """

    random_draws: int = 5
    threshold: ThresholdRule = "half"

    def answer(self, subject: Subject) -> Result:
        """Table `sensitivity`, a row for each generator and choice of channels."""
        choices = self.choices(subject)
        logits = {"none": subject.evaluate().logits, **subject.evaluate_dropped(choices)}
        draws = [sigmoid(logits.pop(name)) for name in list(logits) if name.startswith("random_")]
        scores = logits | {"random_k": np.mean(draws, axis=0)}
        rows = [row for name in WORDS for row in self._rows(subject, name, scores, draws)]
        table = pd.DataFrame(rows).sort_values("order", kind="stable").drop(columns="order")
        result = Result("Are they needed: the detector without them", ABOUT)
        result.tables = {"sensitivity": table.reset_index(drop=True)}
        for seen, group in table.groupby("seen", sort=False):
            ap = group.groupby("dropout")["ap"].mean()
            where = "the generator seen in training" if seen else "generators never seen (mean AP)"
            result.findings.append(
                f"On {where}: AP {ap['none']:.3f}; without the top {subject.k} channels "
                f"{ap['top_k']:.3f}; without {subject.k} random ones {ap['random_k']:.3f}; without "
                f"the {subject.k} lowest {ap['low_k']:.3f}."
            )
            key = "seen" if seen else "unseen"
            result.scalars |= {f"{key}_ap_{name}": float(ap[name]) for name in WORDS}
        result.figures = {
            "sensitivity": comparison.grouped(
                table, "generator", "dropout", "ap", "ap_low", "ap_high", "average precision",
                reference=0.5, labels=WORDS,
            )
        }  # fmt: skip
        result.captions = {
            "sensitivity": f"Average precision with k = {subject.k} channels dropped in three ways."
        }
        if self.threshold == "oracle":
            result.warnings.append(
                "Accuracies use a threshold chosen on the test images themselves: optimistic."
            )
        return result

    def choices(self, subject: Subject) -> dict[str, Tensor]:
        """Channels to drop, (k,) flat indices each: drawn from the seed, apart from their use.

        Raises:
            ValueError: so few channels remain besides the top k that k random ones cannot be drawn.
        """
        rest = subject.ranking[subject.k :].numpy()
        if len(rest) < subject.k:
            raise ValueError(f"k={subject.k}: random and lowest k need as many other channels")
        generator = np.random.default_rng(subject.seed)
        random = {
            f"random_{i}": torch.from_numpy(generator.choice(rest, subject.k, replace=False))
            for i in range(self.random_draws)
        }
        return {"top_k": subject.top, **random, "low_k": subject.ranking[-subject.k :]}

    def _rows(
        self, subject: Subject, name: str, scores: dict[str, Floats], draws: list[Floats]
    ) -> list[dict[str, object]]:
        """One row a generator for one choice of channels."""
        rows = []
        for order, (generator, at) in enumerate(subject.generators()):
            labels = subject.labels[at]
            cut = threshold(self.threshold, labels, sigmoid(scores["none"][at]))
            score = scores[name][at]
            p = score if name == "random_k" else sigmoid(score)
            spread = [
                float(average_precision(labels, draw[at]))
                for draw in (draws if name == "random_k" else [])
            ]
            resampled = resamples(labels, subject.draws, subject.seed)
            rows.append(
                {
                    "generator": generator,
                    "seen": generator in subject.seen,
                    "dropout": name,
                    "k": 0 if name == "none" else subject.k,
                    **detection(labels, score, p > cut, resampled),
                    "ap_draws_min": min(spread, default=np.nan),
                    "ap_draws_max": max(spread, default=np.nan),
                    "threshold": cut,
                    "threshold_rule": self.threshold,
                    "images": len(at),
                    "cue": "none",
                    "order": order,
                }
            )
        return rows
