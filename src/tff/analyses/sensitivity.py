"""Channel dropout: detection without the top channels, and without random ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import (
    GROUPS,
    ApByGenerator,
    Scores,
    accuracies_by_threshold,
    compare_with_controls,
    describe_difference,
    evaluators,
    summarize_draws,
    summarize_generators,
)
from tff.analyses.engine.subject import Subject
from tff.plots import grouped
from tff.statistics.detection import mean_logit
from tff.types import Channels, Result


@dataclass(frozen=True)
class Controls:
    """Draws controls for the top k of a ranking; random ones come from the seed alone.

    Args:
        ranking: (n_channels,) flat indices, best first.
        k: how many of them are the top.

    Raises:
        ValueError: so few channels remain besides the top k that k others cannot be drawn.
    """

    channels: Channels
    ranking: Tensor
    k: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.ranking) < 2 * self.k:
            raise ValueError(f"k={self.k}: random and lowest k need as many other channels")

    @property
    def low(self) -> Tensor:
        """The last k of the ranking."""
        return self.ranking[-self.k :]

    def random(self, draws: int) -> list[Tensor]:
        """So many sets of k channels, without replacement, none of them in the top k."""
        generator = np.random.default_rng(self.seed)
        rest = self.ranking[self.k :].numpy()
        return [
            torch.from_numpy(generator.choice(rest, self.k, replace=False)) for _ in range(draws)
        ]

    def matched(self, draws: int) -> list[Tensor]:
        """The same, with as many channels of each layer as the top k has there.

        Since omega favours narrow layers, k channels from anywhere lie in other layers than the top
        k, and differ from them in that too. Where a layer has too few others, all of them are
        taken, and what is missing comes from anywhere: see `shortage`.
        """
        generator = np.random.default_rng([self.seed, 1])
        sets = []
        for _ in range(draws):
            taken = []
            for wanted, others in self._layers():
                taken.append(generator.choice(others, min(wanted, len(others)), replace=False))
            chosen = np.concatenate(taken)
            elsewhere = np.setdiff1d(self.ranking[self.k :].numpy(), chosen)
            more = generator.choice(elsewhere, self.k - len(chosen), replace=False)
            sets.append(torch.from_numpy(np.concatenate([chosen, more])))
        return sets

    @property
    def shortage(self) -> int:
        """How many of the k matched channels must come from other layers."""
        return sum(max(0, wanted - len(others)) for wanted, others in self._layers())

    def _layers(self) -> list[tuple[int, np.ndarray]]:
        """Of each layer in the top k how many it has there, and its other channels."""
        top = set(self.ranking[: self.k].tolist())
        layers = []
        for layer, width in self.channels.widths.items():
            start = self.channels.starts[layer]
            mine = np.arange(start, start + width)
            inside = np.array([channel in top for channel in mine])
            if inside.any():
                layers.append((int(inside.sum()), mine[~inside]))
        return layers


SHOWN = ("ap", "real_accuracy", "fake_accuracy")

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
draws (columns that begin with ap_draws). The interval of that difference holds the chance of the
draws as well as that of the images: any k channels that were drawn like them would be called more,
or less, than chance in one case of twenty.
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
        drawn = {
            f"{kind}_k": [logits[f"{kind}_{i}"] for i in range(self.random_draws)]
            for kind in ("random", "matched")
        }
        logits |= {name: mean_logit(draws) for name, draws in drawn.items()}
        scores = {name: Scores.of(subject, logits[name]) for name in WORDS}
        draws = {name: [Scores.of(subject, z) for z in of] for name, of in drawn.items()}
        rows: list[dict[str, object]] = []
        accuracies: list[dict[str, object]] = []
        found: dict[str, ApByGenerator] = {name: {} for name in WORDS}
        single: dict[str, list[ApByGenerator]] = {
            name: [{} for _ in of] for name, of in draws.items()
        }
        for evaluator in evaluators(subject):
            plain = evaluator.measure(scores["none"])
            for name in WORDS:
                measures = evaluator.measure(scores[name])
                found[name][evaluator.generator] = measures["ap"]
                alone = [evaluator.measure(one)["ap"] for one in draws.get(name, [])]
                for draw, ap in zip(single.get(name, []), alone, strict=True):
                    draw[evaluator.generator] = ap
                first = {
                    "generator": evaluator.generator, "seen": evaluator.seen, "dropout": name,
                    "k": 0 if name == "none" else subject.k,
                }  # fmt: skip
                columns = {c: v for m in SHOWN for c, v in measures[m].columns(m).items()}
                if name != "none":
                    for m in SHOWN:
                        columns |= (plain[m] - measures[m]).columns(f"{m}_drop")
                rows.append(
                    first | columns | summarize_draws(alone) | evaluator.columns() | {"cue": "none"}
                )
                accuracies += [
                    first | row for row in accuracies_by_threshold(evaluator, scores[name])
                ]
        table = pd.DataFrame(rows)
        against = compare_with_controls(subject, found, single)
        result = Result("Are they needed: the detector without them", ABOUT)
        result.tables = {
            "sensitivity": table,
            "sensitivity_against_matched": against,
            "sensitivity_thresholds": pd.DataFrame(accuracies),
        }
        self._tell(subject, result, found, against)
        result.figures = {
            "sensitivity": grouped.grouped_points(
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

    def _tell(
        self, subject: Subject, result: Result, found: dict[str, ApByGenerator],
        against: pd.DataFrame,
    ) -> None:  # fmt: skip
        """Findings, scalars and warnings."""
        for where in [
            w for w in summarize_generators(subject, found["none"]) if w != "unseen_worst"
        ]:
            ap = {name: summarize_generators(subject, found[name])[where].value for name in WORDS}
            matched = against.query("against == 'matched_k'").set_index("generator")
            columns = ["ap_lower_by", "ap_lower_by_low", "ap_lower_by_high"]
            by, low, high = matched.loc[[GROUPS[where]], columns].to_numpy()[0]
            result.findings.append(
                f"On {GROUPS[where]}: AP {ap['none']:.3f}; without the top {subject.k} channels "
                f"{ap['top_k']:.3f}; without {subject.k} random ones {ap['random_k']:.3f}, without "
                f"matched ones {ap['matched_k']:.3f}; without the lowest {ap['low_k']:.3f}. "
                f"Against one draw of matched ones at a time, the top k cost {by:+.3f} AP "
                f"({low:+.3f} to {high:+.3f}): {describe_difference(low, high)}."
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
