"""Channel dropout: detection without the top channels, and without random ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
from torch import Tensor

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.controls import (
    Comparison,
    Controls,
    describe_change,
    describe_draws,
    join_draws,
)
from tff.analyses.engine.evaluation import (
    MAIN_MEASURES,
    Evaluator,
    Scores,
    describe_resamples,
    estimate_columns,
    evaluators,
    group_labels,
    oracle_warning,
    summarize_generators,
)
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import CRITERIA
from tff.options import checked, whole
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, mean
from tff.statistics.detection import ThresholdRule, mean_logit
from tff.types import Floats, Result

ABOUT = """
If the top channels really carry what the detector looks for, it must fail without them. Here their
output is set to zero and the detector is tested again, on the generator that it was trained on and
on generators that it never saw. Three controls drop as many other channels: random ones; random
ones with as many in each layer as the top k has there (matched); and those that rank lowest. Only
a drop larger than that of the matched ones speaks for the ranking.

AP is average precision: 1 is perfect; a detector that guesses gets the share of generated images
(here mostly 0.5). Intervals and whiskers cover 95 %; those of a difference are paired by image.
Random channels are drawn several times. Their AP is the mean over the draws, and their whiskers
show where the AP of one more draw would lie, on other images: a dot of the top k outside of them is
rare among random channels.

Two differences from the matched channels are told apart. The difference from their *average* has an
interval for the images and for the few draws behind the average. But even a random draw differs
from the average, and with enough images significantly. So the verdict asks whether the top k differ
from *one more draw*: any k channels drawn like them would in one case of twenty.
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
        random_draws: number of sets of random and of matched channels.
    """

    random_draws: Annotated[int, whole(least=1)] = 10

    def answer(self, subject: Subject) -> Result:
        """Tables `sensitivity`, `sensitivity_thresholds`, `sensitivity_against_matched`."""
        logits = {"none": subject.evaluate().logits}
        logits |= subject.evaluate_without_channels(self.choices(subject))
        draws = self._draws
        together = {name: mean_logit([logits[d] for d in names]) for name, names in draws.items()}
        scores = {name: Scores.of(subject, values) for name, values in logits.items()}
        ensembles = {name: Scores.of(subject, values) for name, values in together.items()}
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
                single = [measured[draw] for draw in draws.get(name, [name])]
                columns: dict[str, float] = {}
                for measure in MAIN_MEASURES:
                    columns |= describe_draws([one[measure] for one in single], measure)
                if name != "none":
                    lost = {
                        m: join_draws([measured["none"][m] - one[m] for one in single])
                        for m in MAIN_MEASURES
                    }
                    columns |= estimate_columns(lost, MAIN_MEASURES, "_drop")
                judged = ensembles.get(name, scores.get(name))
                assert judged is not None
                ensemble = evaluator.measure(judged) if name in draws else measured[name]
                columns |= estimate_columns(ensemble, MAIN_MEASURES, "_ensemble")
                values = pd.Series(
                    [one["ap"].value for one in single if name in draws], dtype=float
                )
                columns |= {
                    "ap_draws_mean": values.mean(), "ap_draws_sd": values.std(),
                    "ap_draws_min": values.min(), "ap_draws_max": values.max(),
                }  # fmt: skip
                rows.append(first | columns | evaluator.columns() | {"cue": "none"})
                by_rule = accuracies_by_threshold(evaluator, judged)
                accuracies += [first | row for row in by_rule]
        table = pd.DataFrame(rows)
        by_group = {name: _with_groups(subject, found) for name, found in aps.items()}
        comparisons = {
            control: {
                generator: Comparison.of(
                    ap, [by_group[name][generator] for name in names], among=subject.among
                )
                for generator, ap in by_group["top_k"].items()
            }
            for control, names in draws.items()
        }
        result = Result("Channel dropout: the detector without its top channels", ABOUT)
        result.tables = {
            "sensitivity": table,
            "sensitivity_against_matched": _tabulate(comparisons, by_group),
            "sensitivity_thresholds": pd.DataFrame(accuracies),
        }
        self._add_findings(result, subject, by_group, comparisons["matched_k"])
        result.warnings += oracle_warning(subject)
        result.figures = {
            "sensitivity": grouped.grouped_points(
                table, "generator", "dropout", "ap", "ap_low", "ap_high", "average precision",
                reference=0.5, labels=DROPOUT_LABELS,
            )
        }  # fmt: skip
        result.captions = {
            "sensitivity": f"Average precision with k = {subject.k} channels dropped in four ways; "
            f"random ones: mean of {self.random_draws} draws, whiskers of one more draw. "
            f"{describe_resamples(subject)}"
        }
        if tied := self._controls(subject).lowest(subject.k, _scores(subject))[1]:
            result.captions["sensitivity"] += (
                f" The lowest {subject.k} were drawn at random: {tied:,} channels share the lowest "
                f"{CRITERIA[subject.criterion]}."
            )
        return result

    @property
    def _draws(self) -> dict[str, list[str]]:
        """Names of the single draws of `random_k` and `matched_k`."""
        numbers = range(self.random_draws)
        return {f"{kind}_k": [f"{kind}_{i}" for i in numbers] for kind in ("random", "matched")}

    def choices(self, subject: Subject) -> dict[str, Tensor]:
        """Channels to drop, (k,) flat indices each, by name: `top_k`, `random_0`, ..., `low_k`.

        Random ones depend only on the seed and the ranking of the subject.

        Raises:
            ValueError: fewer than k channels remain besides the top k.
        """
        controls, k = self._controls(subject), subject.k
        drawn = {
            "random_k": controls.random(k, self.random_draws),
            "matched_k": [order[:k] for order in controls.matched(self.random_draws)],
        }
        named = {
            name: channels
            for kind, names in self._draws.items()
            for name, channels in zip(names, drawn[kind], strict=True)
        }
        return {"top_k": subject.top, **named, "low_k": controls.lowest(k, _scores(subject))[0]}

    @staticmethod
    def _controls(subject: Subject) -> Controls:
        return Controls(subject.channels, subject.ranking, subject.seed)

    def _add_findings(
        self,
        result: Result,
        subject: Subject,
        aps: Mapping[str, ApByGenerator],
        matched: Mapping[str, Comparison],
    ) -> None:
        """Findings and scalars, for seen and unseen generators.

        Args:
            aps: AP of every choice, by generator or group.
            matched: comparisons with matched channels, by generator or group.
        """
        k, draws = subject.k, self._draws
        chosen = subject.options.k == "auto"
        top, cost = (f"the top {k} channels", "cost") if k > 1 else ("the top channel", "costs")
        for where, group in group_labels(subject).items():
            if group not in matched:
                continue
            ap = {
                name: mean([aps[draw][group] for draw in draws.get(name, [name])]).value
                for name in DROPOUT_LABELS
            }
            changes = {name: describe_change(ap["none"], value) for name, value in ap.items()}
            verdict = (
                "no verdict, since k was chosen where the top k hurt"
                if chosen
                else matched[group].verdict()
            )
            result.findings.append(
                f"On {group}: AP is {ap['none']:.3f}; without {top} it {changes['top_k']}; "
                f"without as many random ones from the same layers it {changes['matched_k']} on "
                f"average, without random ones from anywhere it {changes['random_k']}, without the "
                f"lowest it {changes['low_k']}. "
                f"{matched[group].describe(f'{top.capitalize()} {cost}')}: {verdict}."
            )
            result.scalars |= {f"{where}_ap_{name}": value for name, value in ap.items()}
        if chosen:
            result.warnings.append(
                f"k = {k} is the smallest number of top channels without which AP on the discovery "
                f"images is below {subject.options.k_below:g}; random channels had no such choice, "
                "so that the comparison favors the top channels. Pass subject.k=NUMBER, or add "
                "k_sweep to the analyses, for a verdict."
            )


def _scores(subject: Subject) -> Floats:
    """Scores (n_channels,) behind the ranking of the subject."""
    return subject.score_channels(subject.criterion)


def _with_groups(subject: Subject, aps: ApByGenerator) -> ApByGenerator:
    """AP by generator, and the means over seen and over unseen ones by the name of the group."""
    parts, labels = summarize_generators(subject, aps), group_labels(subject)
    return aps | {labels[part]: ap for part, ap in parts.items() if part != "unseen_worst"}


def _tabulate(
    comparisons: Mapping[str, Mapping[str, Comparison]], aps: Mapping[str, ApByGenerator]
) -> pd.DataFrame:
    """How much lower AP is without the top k: a row per control and generator or group."""
    rows = [
        {"generator": generator, "against": control, **comparison.columns("ap_lower_by")}
        for control, by_generator in comparisons.items()
        for generator, comparison in by_generator.items()
    ]
    for generator, ap in aps["top_k"].items():
        difference = aps["low_k"][generator] - ap
        columns = Comparison(difference, difference).columns("ap_lower_by")
        rows.append({"generator": generator, "against": "low_k", **columns})
    return pd.DataFrame(rows)


def accuracies_by_threshold(evaluator: Evaluator, scores: Scores) -> list[dict[str, object]]:
    """Accuracies under each threshold rule, with 95 % intervals; a row per rule.

    As in the released code, `validation` and `oracle` thresholds come from the detector with
    nothing dropped. `oracle` uses the evaluated images themselves and is optimistic.
    """
    rows: list[dict[str, object]] = []
    for rule in RULES:
        found = evaluator.accuracies(scores, rule)
        columns = estimate_columns(found, ("real_accuracy", "fake_accuracy"))
        rows.append({"threshold_rule": rule, "threshold": evaluator.threshold(rule), **columns})
    return rows
