"""Emergence: how the top channels changed over the checkpoints of a training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from tff.analyses.median_test import SHARE_LABELS
from tff.analyses.ranking_agreement import overlap_table
from tff.comparisons.comparison import Comparison
from tff.options import PATH, checked, whole
from tff.plots import curves
from tff.report.results import read_results
from tff.statistics.rank_agreement import spearman, top_k_overlap
from tff.types import Result

ABOUT = """
While this detector was trained, its checkpoints were ranked by FF-RS (omega), each with the same
options. This section follows the ranking from checkpoint to checkpoint. "The final top {k}" are the
top channels of the last analysed checkpoint (step {last:,}), which need not be the best one.

How many of the top {k} of a checkpoint are in the final top {k}? Two unrelated rankings of n
channels share k²/n of them. But omega is a share of a layer, so narrow layers are on top in any
ranking: the second reference keeps the number of top channels in each layer and draws the channels
within the layers at random. An untrained network has top channels too: that they stay does not
prove that training made them.

The color-conditional share is that of the top channels of each checkpoint itself, not of the final
ones. The paper's median test asks whether responses change without the cue, and is high for nearly
any filter; the others ask how well a channel tells generated from real images without the cue. No
test says whether a share differs between checkpoints by more than chance.
"""
#: Columns that say how a checkpoint was analysed; `weights` names the checkpoint and always
#: differs.
PROTOCOL = ("protocol", "crop", "resize", "relevance", "seed")
STABILITY = (
    "compared", "step", "other_step", "k", "overlap", "share", "by_chance", "p_by_chance",
    "within_layers", "p_within_layers", "spearman",
)  # fmt: skip
NAMED = 5  # channels that the figure tells apart
FEW_IMAGES = 30
_RANKING = {
    "rank": int, "layer": str, "channel": int, "omega": float, "omega_low": float,
    "omega_high": float, "images": float,
}  # fmt: skip
_SHARES = {"generator": str, "cue": str, "share": float, "images": float}
#: Shares of a checkpoint that the page shows.
_SHOWN = ("share_losing", "share_gaining", "share_turning", "share")
_HINT = (
    "train with the callback `analyze` (conf/callbacks/default.yaml) and `ranking` among its "
    "analyses"
)


@dataclass(frozen=True)
@checked("analysis.emergence")
class Emergence(Comparison):
    """Omega, stability of the ranking and conditional share over the checkpoints of one training.

    Args:
        run: folder of the training; when called, ValueError if it has no analysed checkpoints of
            one detector.
        k: number of top channels; None: that of the last analysed checkpoint.
    """

    run: Annotated[str, PATH] | None
    k: Annotated[int, whole(1)] | None = None

    def __call__(self) -> Result:
        """Tables `emergence`, `stability` and `conditional_over_time`."""
        if not self.run or not isinstance(self.run, str):
            raise ValueError(
                f"run={self.run}: analysis=emergence needs the folder of one training; pass run=DIR"
            )
        steps, problems = read_steps(self.run)
        k = self._choose_k(steps[-1])
        top, stability = follow_top(steps, k), compare_rankings(steps, k)
        shares = join_shares(steps)
        result = Result("Emergence of the top channels", ABOUT.format(k=k, last=steps[-1].number))
        result.warnings = [*problems, *find_differing_options(steps)]
        result.tables = {"emergence": top, "stability": stability, "conditional_over_time": shares}
        result.scalars = {"k": k, "checkpoints": len(steps)}
        _report_top(result, top, k)
        few = [f"{step.number:,}" for step in steps if step.ranking["images"].iloc[0] < FEW_IMAGES]
        if few:
            result.warnings.append(
                f"At step {', '.join(few)} omega rests on fewer than {FEW_IMAGES} generated "
                "images: part of the change is chance."
            )
        if len(steps) == 1:
            result.warnings.append(
                f"Only one checkpoint was analysed (step {steps[0].number:,}), so there is no "
                "history. Save checkpoints more often, for example with "
                "trainer.check_val_every_n_epoch=1."
            )
        else:
            _report_stability(result, stability, k)
        _report_shares(result, shares)
        return result

    def _choose_k(self, last: Step) -> int:
        k, n = self.k if self.k is not None else last.k, len(last.ranking)
        if k is None:
            raise ValueError(
                f"run={self.run}: the results of step {last.number} do not say which k was used; "
                "pass analysis.emergence.k=..."
            )
        if k > n:
            raise ValueError(f"analysis.emergence.k={k}: the detector has only {n} channels")
        return k


@dataclass(frozen=True)
class Step:
    """One analysed checkpoint.

    Attributes:
        number: training steps before it.
        ranking: table `ranking` of all channels, best first.
        shares: table `conditional_share`; None if `median_test` was not run.
        k: number of top channels; None if unknown.
    """

    number: int
    ranking: pd.DataFrame
    shares: pd.DataFrame | None
    k: int | None

    @classmethod
    def read(cls, number: int, report: Path) -> Step:
        """Read the report of a checkpoint; ValueError if it is damaged or holds no ranking."""
        results = read_results(report)
        ranking = results.table("ranking", _RANKING)
        if ranking is None:
            raise ValueError(f"{report}: has no table `ranking`; the analysis failed or was killed")
        ranking = ranking.sort_values("rank", ignore_index=True)
        ordered = (ranking["rank"] == ranking.index + 1).all()
        if not ordered or ranking.duplicated(["layer", "channel"]).any():
            raise ValueError(f"{report}: the table `ranking` does not rank each channel once")
        k = results.scalars.get("ranking/k")
        return cls(
            number,
            ranking,
            results.table("conditional_share", _SHARES, dict.fromkeys(_SHOWN, float)),
            k if isinstance(k, int) and k > 0 else None,
        )


def read_steps(run: str | Path) -> tuple[list[Step], list[str]]:
    """Analysed checkpoints of a training in order, and a sentence for each that cannot be read.

    Args:
        run: folder of the training, which holds `checkpoints/stepNNNNNN/`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no checkpoint was analysed or can be read, or two rank different channels.
    """
    folder = Path(run).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"run={run}: there is no such folder; pass that of a training")
    reports = {
        int(found[1]): report
        for report in (folder / "checkpoints").glob("step*")
        if report.is_dir() and (found := re.fullmatch("step([0-9]{1,15})", report.name))
    }
    if not reports:
        raise ValueError(f"run={run}: none of its checkpoints was analysed; {_HINT}")
    steps, problems = [], []
    for number, report in sorted(reports.items()):
        try:
            steps.append(Step.read(number, report))
        except ValueError as error:
            problems.append(f"The checkpoint of step {number:,} is skipped: {error}.")
    if not steps:
        raise ValueError(f"run={run}: no checkpoint can be read. {' '.join(problems)}")
    channels = [{*zip(s.ranking["layer"], s.ranking["channel"], strict=True)} for s in steps]
    for step, ranked in zip(steps, channels, strict=True):
        if ranked != channels[-1]:
            raise ValueError(
                f"run={run}: the checkpoints of steps {step.number} and {steps[-1].number} rank "
                "different channels, so they belong to two detectors; keep one training in a folder"
            )
    return steps, problems


def find_differing_options(steps: Sequence[Step]) -> list[str]:
    """A sentence for each option that differs between the analyses of the checkpoints."""
    numbers = pd.Series([str(step.number) for step in steps])
    sentences = []
    for column in PROTOCOL:
        first = (step.ranking.get(column, ["unknown"]) for step in steps)
        parts = numbers.groupby([str(values[0]) for values in first], sort=False).agg(", ".join)
        if len(parts) > 1:
            sentences.append(
                f"The checkpoints were analysed with different options: {column} is "
                f"{'; '.join(f'{value} at step {at}' for value, at in parts.items())}."
            )
    return sentences


def follow_top(steps: Sequence[Step], k: int) -> pd.DataFrame:
    """The final top k channels at every step: rank, omega with its interval, `in_top`."""
    named = [c for c in ("layer", "channel", "kind") if c in steps[-1].ranking]
    final = steps[-1].ranking.head(k)[[*named, "rank"]]
    final = final.rename(columns={"rank": "rank_final"})
    columns = ["step", *final, "rank", "in_top", "omega", "omega_low", "omega_high", "images"]
    parts = [
        final.merge(
            s.ranking.drop(columns="kind", errors="ignore"), on=["layer", "channel"]
        ).assign(step=s.number)
        for s in steps
    ]
    top = pd.concat(parts, ignore_index=True)
    top["in_top"] = top["rank"] <= k
    return top[[*columns, *(c for c in PROTOCOL if c in top)]]


def compare_rankings(steps: Sequence[Step], k: int) -> pd.DataFrame:
    """Each step compared with the next one and with the final one; columns `STABILITY`.

    Overlap at k and its expectation by chance as in `overlap_table`; `spearman` of omega over all
    channels.
    """
    # The index of a sorted ranking is the order of its channels, best first.
    sorted_by_channel = [step.ranking.sort_values(["layer", "channel"]) for step in steps]
    orders = [np.argsort(table.index.to_numpy(np.int64)) for table in sorted_by_channel]
    omegas = [table["omega"].to_numpy(float) for table in sorted_by_channel]
    layers = pd.factorize(sorted_by_channel[-1]["layer"])[0].astype(np.int64)
    kinds = np.zeros_like(layers)  # tables of networks with one kind do not name it
    if "kind" in sorted_by_channel[-1]:
        kinds = pd.factorize(sorted_by_channel[-1]["kind"])[0].astype(np.int64)
    last = len(steps) - 1
    pairs = [("next", i, i + 1) for i in range(last)] + [("final", i, last) for i in range(last)]
    rows = []
    for compared, i, j in pairs:
        counts = top_k_overlap(orders[i], orders[j])
        row = overlap_table([k], counts, orders[i], orders[j], layers, kinds)
        row = row.assign(
            compared=compared, step=steps[i].number, other_step=steps[j].number,
            spearman=spearman(omegas[i], omegas[j]),
        )  # fmt: skip
        rows.append(row)
    if not rows:
        return pd.DataFrame(columns=STABILITY)
    return pd.concat(rows, ignore_index=True)[list(STABILITY)]


def join_shares(steps: Sequence[Step]) -> pd.DataFrame:
    """Conditional shares of every step and generator, as the median test found them."""
    parts = [s.shares.assign(step=s.number) for s in steps if s.shares is not None]
    if not parts:
        return pd.DataFrame(columns=["step", "generator", "share", "images"])
    table = pd.concat(parts, ignore_index=True)
    return table[["step", *(c for c in table if c not in ("step", "weights"))]]


def _report_top(result: Result, top: pd.DataFrame, k: int) -> None:
    """Figure of omega over the steps."""
    channels = top.assign(name=top["layer"] + " #" + top["channel"].astype(str))
    named = channels.drop_duplicates("name").nsmallest(NAMED, "rank_final")["name"]
    result.figures["emergence"] = curves.highlighted_lines(
        channels, "step", "name", "omega", "omega (share of the layer's relevance)", list(named)
    )
    result.captions["emergence"] = (
        f"Omega of the final top {k} channels. The {len(named)} strongest are named, with 95 % "
        "intervals over images."
    )


def _report_stability(result: Result, stability: pd.DataFrame, k: int) -> None:
    """Overlap with the final top k, and the step from which half of it stays."""
    final = stability[stability["compared"] == "final"]
    last = int(final["other_step"].iloc[0])
    # The half has to stay: an earlier step after which it was lost again does not count.
    below = final.index[2 * final["overlap"] < k]
    reached = final if below.empty else final[final.index > below[-1]]
    if reached.empty:
        result.findings.append(
            f"Half of the final top {k} came after step {int(final['step'].iloc[-1]):,}, the "
            f"last checkpoint but one, which has {int(final['overlap'].iloc[-1])} of them."
        )
    else:
        row = reached.iloc[0]
        first = ", the first analysed one" if len(reached) == len(final) else ""
        result.findings.append(
            f"From step {int(row['step']):,} on{first}, at least half of the final top {k} "
            f"(step {last:,}) are in the top {k}: {int(row['overlap'])} at first. By chance these "
            f"would be {row['by_chance']:.1f}, or {row['within_layers']:.1f} if the number of top "
            f"channels in each layer is kept (p = {row['p_within_layers']:.1g})."
        )
    row = final.iloc[-1]
    result.findings.append(
        f"Between the last two checkpoints, {int(row['overlap'])} of {k} stayed; the rank "
        f"correlation (Spearman) of omega over all channels is {row['spearman']:.3f}."
    )
    result.scalars |= {
        "step_of_half": float(reached["step"].iloc[0]) if len(reached) else float("nan"),
        "overlap_of_last_two": float(row["overlap"]),
        "spearman_of_last_two": float(row["spearman"]),
    }
    following = stability[stability["compared"] == "next"].set_index("step")["share"]
    chances = {"chance": final["by_chance"] / k, "within": final["within_layers"] / k}
    drawn = final.assign(next=final["step"].map(following), **chances)
    words = {"share": "with the final one", "next": "with the next one"}
    chance = {"chance": "final, by chance", "within": "final, by chance within layers"}
    result.figures["stability"] = curves.share_curves(
        drawn, "step", words, f"of the top {k} in both", chance
    )
    result.captions["stability"] = (
        f"Share of the top {k} of a checkpoint that is also in the top {k} of the final one, "
        "and of the next one."
    )


def _report_shares(result: Result, shares: pd.DataFrame) -> None:
    """Conditional shares over the steps; without any, a warning that says how to get them."""
    if shares.empty:
        result.warnings.append(
            "No checkpoint has a color-conditional share: add `median_test` to the analyses of "
            "the callback."
        )
        return
    columns = [column for column in _SHOWN if column in shares]
    averages: dict[str, Any] = {"n": ("generator", "size")}
    for column in columns:
        averages[column] = (column, "mean")
        averages |= {f"{column}_low": (column, "min"), f"{column}_high": (column, "max")}
    means = shares.groupby("step").agg(**averages).reset_index()
    first, last = means.iloc[0], means.iloc[-1]
    cue = ", ".join(shares["cue"].unique())
    for column in columns:
        result.scalars[f"{column}_final"] = float(last[column])
        result.findings.append(
            f"{cue.capitalize()}-conditional ({SHARE_LABELS[column]}): {100 * first[column]:.0f} % "
            f"of the top channels at step {int(first['step']):,}, {100 * last[column]:.0f} % "
            f"at step {int(last['step']):,} (mean over {int(last['n'])} generators)."
        )
    result.figures["conditional_over_time"] = curves.share_curves(
        means, "step", {c: SHARE_LABELS[c] for c in columns}, f"{cue}-conditional top channels"
    )
    result.captions["conditional_over_time"] = (
        "Share of the top channels that are conditional: mean over generators, and the range "
        "from the smallest to the largest."
    )
