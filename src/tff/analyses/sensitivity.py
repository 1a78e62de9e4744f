"""Does the detector need these channels? It is tested with them dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from tff.analyses.accuracies import at_each_threshold
from tff.analyses.base import Analysis
from tff.analyses.controls import Controls
from tff.analyses.judge import WHERE, Scores, judges, over_generators
from tff.analyses.subject import Subject
from tff.plots import comparison
from tff.statistics.detection import sigmoid
from tff.statistics.estimate import Estimate, mean
from tff.types import Result

ABOUT = """
If the top channels really carry what the detector looks for, it must fail without them. Their
output is set to zero and the detector is tested again, on the generator that it was trained on and
on generators that it never saw. Three controls take away as many channels elsewhere: random ones,
random ones with as many in each layer as the top k has there (matched), and those with the least
omega. Only a drop that is larger than that of the matched ones tells of the ranking.

AP is average precision: 1 is perfect; a detector that guesses gets the share of generated images
(here mostly 0.5). Whiskers are 95 % bootstrap intervals over the images; differences are taken
image by image. Of random channels the mean probability over the draws is judged, as in the released
code. That mean does better than any draw, so the top k are held against the mean AP of the single
draws (columns that begin with ap_draws).
"""
WORDS = {
    "none": "nothing dropped",
    "top_k": "top k dropped",
    "random_k": "random k dropped",
    "matched_k": "matched random k dropped",
    "low_k": "lowest k dropped",
}


@dataclass(frozen=True)
class Sensitivity(Analysis):
    """AP and accuracies with the top k, k random, k matched and the lowest k channels dropped.

    Args:
        random_draws: sets of random and of matched channels, none of them in the top k.

    Raises:
        ValueError: not even one set is asked for.
    """

    random_draws: int = 5

    def __post_init__(self) -> None:
        if self.random_draws < 1:
            raise ValueError(
                f"analysis.sensitivity.random_draws={self.random_draws}: must be at least 1"
            )

    def answer(self, subject: Subject) -> Result:
        """Tables `sensitivity`, `sensitivity_thresholds`, `sensitivity_against_matched`."""
        logits = {"none": subject.evaluate().logits}
        logits |= subject.evaluate_dropped(self.choices(subject))
        scores, draws = self._scores(subject, logits)
        rows: list[dict[str, object]] = []
        accuracies: list[dict[str, object]] = []
        found: dict[str, dict[str, Estimate]] = {name: {} for name in WORDS}
        single: dict[str, dict[str, Estimate]] = {name: {} for name in WORDS}
        for judge in judges(subject):
            for name in WORDS:
                measures = judge(scores[name])
                found[name][judge.name] = measures["ap"]
                drop = found["none"][judge.name] - measures["ap"]
                alone = [judge(Scores(p, p))["ap"] for p in draws.get(name, [])]
                single[name][judge.name] = mean(alone) if alone else measures["ap"]
                first = {
                    "generator": judge.name, "seen": judge.seen, "dropout": name,
                    "k": 0 if name == "none" else subject.k,
                }  # fmt: skip
                shown = {m: measures[m] for m in ("ap", "real_accuracy", "fake_accuracy")}
                columns = {c: v for m, e in shown.items() for c, v in e.columns(m).items()}
                spread = _spread(alone)
                of_drop = {} if name == "none" else drop.columns("ap_drop")
                rows.append(first | columns | of_drop | spread | judge.columns() | {"cue": "none"})
                accuracies += [first | row for row in at_each_threshold(judge, scores[name])]
        table = pd.DataFrame(rows)
        contrast = self._contrast(subject, single)
        result = Result("Are they needed: the detector without them", ABOUT)
        result.tables = {
            "sensitivity": table,
            "sensitivity_against_matched": contrast,
            "sensitivity_thresholds": pd.DataFrame(accuracies),
        }
        self._tell(subject, result, found, contrast)
        result.figures = {
            "sensitivity": comparison.grouped(
                table, "generator", "dropout", "ap", "ap_low", "ap_high", "average precision",
                reference=0.5, labels=WORDS,
            )
        }  # fmt: skip
        result.captions = {
            "sensitivity": f"Average precision with k = {subject.k} channels dropped in four ways."
        }
        return result

    def choices(self, subject: Subject) -> dict[str, Tensor]:
        """Channels to drop, (k,) flat indices each: drawn from the seed, apart from their use.

        Raises:
            ValueError: so few channels remain besides the top k that k others cannot be drawn.
        """
        controls = self._controls(subject)
        random = controls.random(self.random_draws), controls.matched(self.random_draws)
        named = {
            f"{name}_{i}": channels
            for name, sets in zip(("random", "matched"), random, strict=True)
            for i, channels in enumerate(sets)
        }
        return {"top_k": subject.top, **named, "low_k": controls.low}

    @staticmethod
    def _controls(subject: Subject) -> Controls:
        return Controls(subject.channels, subject.ranking, subject.k, subject.seed)

    def _scores(
        self, subject: Subject, logits: dict[str, np.ndarray]
    ) -> tuple[dict[str, Scores], dict[str, list[np.ndarray]]]:
        """What is judged, and of random channels the probabilities of each draw."""
        single = {n: Scores.of(subject, logits[n]) for n in ("none", "top_k", "low_k")}
        draws = {
            f"{name}_k": [sigmoid(logits[f"{name}_{i}"]) for i in range(self.random_draws)]
            for name in ("random", "matched")
        }
        means = {name: np.mean(ps, axis=0) for name, ps in draws.items()}
        return single | {name: Scores(p, p) for name, p in means.items()}, draws

    @staticmethod
    def _contrast(subject: Subject, found: dict[str, dict[str, Estimate]]) -> pd.DataFrame:
        """By how much AP is lower without the top k than without others, with intervals.

        Args:
            found: AP of each generator; of random channels the mean over single draws.
        """
        rows: list[dict[str, object]] = []
        for control in ("random_k", "matched_k", "low_k"):
            differences = {g: ap - found["top_k"][g] for g, ap in found[control].items()}
            parts = over_generators(subject, differences)
            parts.pop("unseen_worst", None)
            named = differences | {WHERE[where]: e for where, e in parts.items()}
            rows += [
                {"generator": g, "against": control, **e.columns("ap_lower_by")}
                for g, e in named.items()
            ]
        return pd.DataFrame(rows)

    def _tell(
        self, subject: Subject, result: Result, found: dict[str, dict[str, Estimate]],
        contrast: pd.DataFrame,
    ) -> None:  # fmt: skip
        """Findings, scalars and warnings."""
        for where in [w for w in over_generators(subject, found["none"]) if w != "unseen_worst"]:
            ap = {name: over_generators(subject, found[name])[where].value for name in WORDS}
            matched = contrast.query("against == 'matched_k'").set_index("generator")
            columns = ["ap_lower_by", "ap_lower_by_low", "ap_lower_by_high"]
            by, low, high = matched.loc[[WHERE[where]], columns].to_numpy()[0]
            sure = (
                "more than chance" if low > 0
                else "less, and not by chance" if high < 0
                else "no more than chance can do"
            )  # fmt: skip
            result.findings.append(
                f"On {WHERE[where]}: AP {ap['none']:.3f}; without the top {subject.k} channels "
                f"{ap['top_k']:.3f}; without {subject.k} random ones {ap['random_k']:.3f}, without "
                f"matched ones {ap['matched_k']:.3f}; without the lowest {ap['low_k']:.3f}. "
                f"Against one draw of matched ones at a time, the top k cost {by:+.3f} AP "
                f"({low:+.3f} to {high:+.3f}): {sure}."
            )
            result.scalars |= {f"{where}_ap_{name}": value for name, value in ap.items()}
        if shortage := self._controls(subject).shortage:
            result.warnings.append(
                f"{shortage} of the {subject.k} matched channels come from other layers, since the "
                "top k take more than half of a layer."
            )
        if subject.options.scoring.threshold == "oracle":
            result.warnings.append(
                "Accuracies use a threshold chosen on the test images themselves: optimistic."
            )


def _spread(alone: list[Estimate]) -> dict[str, float]:
    """How much AP differs between single draws of random channels."""
    aps = np.array([ap.value for ap in alone])
    known = len(aps) > 0
    return {
        "ap_draws_mean": float(aps.mean()) if known else np.nan,
        "ap_draws_sd": float(aps.std(ddof=1)) if len(aps) > 1 else np.nan,
        "ap_draws_min": float(aps.min()) if known else np.nan,
        "ap_draws_max": float(aps.max()) if known else np.nan,
    }
