"""Channel dropout: detection without the top channels, and without random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import (
    GROUPS,
    MAIN_MEASURES,
    Evaluator,
    Scores,
    describe_difference,
    estimate_columns,
    evaluators,
    oracle_warning,
    summarize_generators,
)
from tff.analyses.engine.subject import Subject
from tff.options import checked, whole
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, shortfall
from tff.statistics.detection import ThresholdRule, mean_logit
from tff.types import Channels, Ints, Result

ABOUT = """
If the top channels really carry what the detector looks for, it must fail without them. Here their
output is set to zero and the detector is tested again, on the generator that it was trained on and
on generators that it never saw. Three controls drop as many other channels: random ones; random
ones with as many in each layer as the top k has there (matched); and those with the lowest omega.
Only a drop larger than that of the matched ones speaks for the ranking.

AP is average precision: 1 is perfect; a detector that guesses gets the share of generated images
(here mostly 0.5). Whiskers are 95 % bootstrap intervals over the images; differences are paired by
image. The rows of random channels evaluate the mean probability over the draws, as in the released
code. This mean does better than any single draw, so the top k are compared with the mean AP of the
single draws (columns that begin with ap_draws). The interval of that comparison covers the
variation of the draws as well as that of the images: any k channels drawn like them would differ
significantly in one case of twenty.
"""
DROPOUT_LABELS = {
    "none": "nothing dropped",
    "top_k": "top k dropped",
    "random_k": "random k dropped",
    "matched_k": "matched random k dropped",
    "low_k": "lowest k dropped",
}
RULES: tuple[ThresholdRule, ...] = ("half", "validation", "oracle")
ApByGenerator = dict[str, Estimate]


@dataclass(frozen=True)
@checked("analysis.sensitivity")
class Sensitivity(Analysis):
    """AP and accuracies with the top k, k random, k matched and the lowest k channels dropped.

    Args:
        random_draws: number of sets of random and of matched channels, none of them in the top k.
    """

    random_draws: Annotated[int, whole(least=1)] = 5

    def answer(self, subject: Subject) -> Result:
        """Tables `sensitivity`, `sensitivity_thresholds`, `sensitivity_against_matched`."""
        logits = {"none": subject.evaluate().logits}
        logits |= subject.evaluate_without_channels(self.choices(subject))
        draws = {
            f"{kind}_k": [f"{kind}_{i}" for i in range(self.random_draws)]
            for kind in ("random", "matched")
        }
        logits |= {name: mean_logit([logits[d] for d in names]) for name, names in draws.items()}
        scores = {name: Scores.of(subject, values) for name, values in logits.items()}
        rows: list[dict[str, object]] = []
        accuracies: list[dict[str, object]] = []
        aps: dict[str, ApByGenerator] = {name: {} for name in scores}
        for evaluator in evaluators(subject):
            measured = {name: evaluator.measure(found) for name, found in scores.items()}
            for name, measures in measured.items():
                aps[name][evaluator.generator] = measures["ap"]
            for name in DROPOUT_LABELS:
                first = {
                    "generator": evaluator.generator, "seen": evaluator.seen, "dropout": name,
                    "k": 0 if name == "none" else subject.k,
                }  # fmt: skip
                columns = estimate_columns(measured[name], MAIN_MEASURES)
                if name != "none":
                    lost = {m: measured["none"][m] - measured[name][m] for m in MAIN_MEASURES}
                    columns |= estimate_columns(lost, MAIN_MEASURES, "_drop")
                single = pd.Series(
                    [measured[d]["ap"].value for d in draws.get(name, [])], dtype=float
                )
                columns |= {
                    "ap_draws_mean": single.mean(), "ap_draws_sd": single.std(),
                    "ap_draws_min": single.min(), "ap_draws_max": single.max(),
                }  # fmt: skip
                rows.append(first | columns | evaluator.columns() | {"cue": "none"})
                by_rule = accuracies_by_threshold(evaluator, scores[name])
                accuracies += [first | row for row in by_rule]
        table = pd.DataFrame(rows)
        controls = compare_with_controls(subject, aps, draws)
        result = Result("Channel dropout: the detector without its top channels", ABOUT)
        result.tables = {
            "sensitivity": table,
            "sensitivity_against_matched": controls,
            "sensitivity_thresholds": pd.DataFrame(accuracies),
        }
        _add_findings(result, subject, aps, controls)
        if shortage := self._controls(subject).shortage:
            result.warnings.append(
                f"{shortage} of the {subject.k} matched channels come from other layers, since the "
                "top k take more than half of a layer."
            )
        result.warnings += oracle_warning(subject)
        result.figures = {
            "sensitivity": grouped.grouped_points(
                table, "generator", "dropout", "ap", "ap_low", "ap_high", "average precision",
                reference=0.5, labels=DROPOUT_LABELS,
            )
        }  # fmt: skip
        result.captions = {
            "sensitivity": f"Average precision with k = {subject.k} channels dropped in four ways."
        }
        return result

    def choices(self, subject: Subject) -> dict[str, Tensor]:
        """Channels to drop, (k,) flat indices each, by name: `top_k`, `random_0`, ..., `low_k`.

        Random ones depend only on the seed and the ranking of the subject.

        Raises:
            ValueError: fewer than k channels remain besides the top k.
        """
        controls = self._controls(subject)
        drawn = {
            "random": controls.random(self.random_draws),
            "matched": controls.matched(self.random_draws),
        }
        named = {f"{kind}_{i}": c for kind, several in drawn.items() for i, c in enumerate(several)}
        return {"top_k": subject.top, **named, "low_k": controls.lowest}

    @staticmethod
    def _controls(subject: Subject) -> Controls:
        return Controls(subject.channels, subject.ranking, subject.k, subject.seed)


def accuracies_by_threshold(evaluator: Evaluator, scores: Scores) -> list[dict[str, object]]:
    """Accuracies under each threshold rule, with 95 % intervals (Wilson, 1927); a row per rule.

    As in the released code, `validation` and `oracle` thresholds come from the detector with
    nothing dropped. `oracle` uses the evaluated images themselves and is optimistic.
    """
    rows: list[dict[str, object]] = []
    p = scores.p[evaluator.rows]
    for rule in RULES:
        threshold = evaluator.threshold(rule)
        row: dict[str, object] = {"threshold_rule": rule, "threshold": threshold}
        for name, label in (("real_accuracy", 0), ("fake_accuracy", 1)):
            right = ((p > threshold) == (label == 1))[evaluator.labels == label]
            value = low = high = np.nan
            if total := len(right):
                value = right.mean()
                low, high = binomtest(int(right.sum()), total).proportion_ci(method="wilson")
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return rows


def compare_with_controls(
    subject: Subject, aps: Mapping[str, ApByGenerator], draws: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """How much lower AP is without the top k channels than without other channels.

    Args:
        aps: AP with each choice of channels dropped.
        draws: names of the random choices that each control consists of.

    Returns:
        A row per generator or group and control, with 95 % intervals.
    """

    def with_means(name: str) -> ApByGenerator:
        parts = summarize_generators(subject, aps[name])
        means = {GROUPS[part]: ap for part, ap in parts.items() if part != "unseen_worst"}
        return aps[name] | means

    top, low = with_means("top_k"), with_means("low_k")
    controls = {control: [with_means(name) for name in names] for control, names in draws.items()}
    differences = {
        control: {g: shortfall(ap, [draw[g] for draw in of]) for g, ap in top.items()}
        for control, of in controls.items()
    }
    differences["low_k"] = {generator: low[generator] - ap for generator, ap in top.items()}
    return pd.DataFrame(
        {"generator": generator, "against": control, **difference.columns("ap_lower_by")}
        for control, by_generator in differences.items()
        for generator, difference in by_generator.items()
    )


def _add_findings(
    result: Result, subject: Subject, aps: dict[str, ApByGenerator], controls: pd.DataFrame
) -> None:
    """Findings and scalars, for seen and unseen generators."""
    matched = controls[controls["against"] == "matched_k"].set_index("generator")
    overall = {name: summarize_generators(subject, aps[name]) for name in DROPOUT_LABELS}
    for where in [where for where in overall["none"] if where != "unseen_worst"]:
        ap = {name: found[where].value for name, found in overall.items()}
        columns = ["ap_lower_by", "ap_lower_by_low", "ap_lower_by_high"]
        by, low, high = matched.loc[[GROUPS[where]], columns].to_numpy()[0]
        result.findings.append(
            f"On {GROUPS[where]}: AP {ap['none']:.3f}; without the top {subject.k} channels "
            f"{ap['top_k']:.3f}; without {subject.k} random ones {ap['random_k']:.3f}, without "
            f"matched ones {ap['matched_k']:.3f}; without the lowest {ap['low_k']:.3f}. "
            f"Compared with single draws of matched ones, the top k cost {by:+.3f} AP "
            f"({low:+.3f} to {high:+.3f}): {describe_difference(low, high)}."
        )
        result.scalars |= {f"{where}_ap_{name}": value for name, value in ap.items()}


@dataclass(frozen=True)
class Controls:
    """Control channels for the top k of a ranking.

    Args:
        channels: the numbering.
        ranking: (n_channels,) flat indices, best first.
        k: size of the top and of every control.
        seed: of random controls.

    Raises:
        ValueError: fewer than k channels remain besides the top k.
    """

    channels: Channels
    ranking: Tensor
    k: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.ranking) < 2 * self.k:
            raise ValueError(
                f"k={self.k}: random and lowest k need as many other channels, but the network has "
                f"{len(self.ranking)} in all; lower subject.k"
            )

    @property
    def lowest(self) -> Tensor:
        """The last k of the ranking: (k,) flat indices."""
        return self.ranking[-self.k :]

    def random(self, draws: int) -> list[Tensor]:
        """Sets of k channels outside the top k, each drawn without replacement."""
        generator = np.random.default_rng(self.seed)
        rest = self.ranking[self.k :].numpy()
        return [
            torch.from_numpy(generator.choice(rest, self.k, replace=False)) for _ in range(draws)
        ]

    def matched(self, draws: int) -> list[Tensor]:
        """Random sets with as many channels in each layer as the top k has there.

        Omega favors narrow layers, so random channels from anywhere lie in other layers than the
        top k and differ from them in that too. If a layer has too few others, all of them are
        taken, and the rest comes from anywhere: see `shortage`.
        """
        generator = np.random.default_rng([self.seed, 1])
        sets = []
        for _ in range(draws):
            taken = [
                generator.choice(others, min(count, len(others)), replace=False)
                for count, others in self._layers()
            ]
            chosen = np.concatenate(taken)
            elsewhere = np.setdiff1d(self.ranking[self.k :].numpy(), chosen)
            more = generator.choice(elsewhere, self.k - len(chosen), replace=False)
            sets.append(torch.from_numpy(np.concatenate([chosen, more])))
        return sets

    @property
    def shortage(self) -> int:
        """How many of the k matched channels must come from other layers."""
        return sum(max(0, count - len(others)) for count, others in self._layers())

    def _layers(self) -> list[tuple[int, Ints]]:
        """For each layer in the top k, how many it has there, and its other channels."""
        masks = self.channels.masks(self.ranking[: self.k])
        return [
            (int(inside.sum()), self.channels.starts[layer] + np.flatnonzero(~inside.numpy()))
            for layer, inside in masks.items()
        ]
