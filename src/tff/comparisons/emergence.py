"""Emergence: how the top channels changed over the checkpoints of a training."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tff.analyses.median_test import SHARE_LABELS
from tff.analyses.ranking_agreement import overlap_table
from tff.comparisons.comparison import Comparison
from tff.plots import curves
from tff.safe_text import read_table
from tff.statistics.rank_agreement import spearman, top_k_overlap
from tff.types import Result

#: Columns of text in the tables that are read here.
NAMES = (
    "layer", "generator", "cue", "ablation", "protocol", "crop", "resize", "weights", "relevance",
    "same_as", "checkpoint", "where",
)  # fmt: skip
_RANKING = ("rank", "layer", "channel", "omega", "omega_low", "omega_high", "images")
_SHARE = ("generator", "seen", "cue", "k", "share", "images")
_HINT = (
    "train with the callback `analyze` (conf/callbacks/default.yaml), whose analyses have to hold "
    "`ranking`"
)


@dataclass(frozen=True)
class Step:
    """One analysed checkpoint.

    Attributes:
        number: training steps that were made.
        ranking: table `ranking` of all channels, best first.
        shares: table `conditional_share`; None where that was not asked.
        k: how many top channels were taken; None where the summary does not tell.
    """

    number: int
    ranking: pd.DataFrame
    shares: pd.DataFrame | None
    k: int | None


def read_steps(run: str | Path) -> tuple[list[Step], list[str]]:
    """All analysed checkpoints of a training, first to last, and why others are left out.

    Args:
        run: folder of the training, which holds `checkpoints/stepNNNNNN/`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no checkpoint in it was analysed, or two of them rank other channels. (Some of
            the channels of another one is a damage, as where a table was cut off.)
    """
    folder = Path(run).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"run={run}: there is no such folder; pass that of a training")
    numbered = {
        int(found[1]): place
        for place in (folder / "checkpoints").glob("step*")
        if place.is_dir() and (found := re.fullmatch(r"step(\d+)", place.name))
    }
    if not numbered:
        raise ValueError(f"run={run}: none of its checkpoints was analysed; {_HINT}")
    steps, problems = [], []
    for number, place in sorted(numbered.items()):
        try:
            steps.append(_step(number, place))
        except (ValueError, OSError) as error:
            problems.append(f"The checkpoint of step {number:,} is left out: {error}.")
    if not steps:
        raise ValueError(f"run={run}: no checkpoint can be read. {' '.join(problems)}")
    steps, cut = _with_all_channels(steps)
    last = steps[-1]
    for step in steps:
        if _channels(step) != _channels(last):
            raise ValueError(
                f"run={run}: the checkpoints of steps {step.number} and {last.number} rank "
                "other channels, so they are of two detectors; keep one training in a folder"
            )
    return steps, problems + cut


def _step(number: int, place: Path) -> Step:
    path = place / "tables" / "ranking.csv"
    if not path.is_file():
        raise ValueError(f"{path} is missing, so it was not analysed to the end, or not ranked")
    ranking = checked(path, _RANKING)
    ranks = np.sort(ranking["rank"].to_numpy(float))
    if not np.array_equal(ranks, np.arange(1, len(ranking) + 1)):
        raise ValueError(f"{path}: its ranks are not 1, 2, 3 and so on; the file is damaged")
    if ranking["channel"].dtype.kind != "i":
        raise ValueError(f"{path}: its channels are no whole numbers; the file is damaged")
    if not np.isfinite(ranking["omega"].to_numpy(float)).all():
        raise ValueError(f"{path}: omega is missing for some channels")
    if ranking.duplicated(["layer", "channel"]).any():
        raise ValueError(f"{path}: a channel stands there twice; the file is damaged")
    shares = place / "tables" / "conditional_share.csv"
    return Step(
        number,
        ranking.sort_values("rank", ignore_index=True),
        checked(shares, _SHARE) if shares.is_file() else None,
        _k(place / "summary.json"),
    )


def checked(path: Path, columns: Sequence[str], others: Sequence[str] = ()) -> pd.DataFrame:
    """A table of a report, whole as far as can be told.

    Args:
        path: of a CSV file.
        columns: that it has; those that are not among `NAMES` hold numbers, `seen` yes or no.
        others: that it may have, likewise.

    Raises:
        ValueError: it is damaged; the message names it.
    """
    table = read_table(path, NAMES)
    if not path.read_bytes().endswith(b"\n"):
        raise ValueError(f"{path}: its last line has no end, so it is cut off")
    if missing := [c for c in columns if c not in table]:
        raise ValueError(f"{path}: has no column {', '.join(missing)}; the file is damaged")
    if table.empty:
        raise ValueError(f"{path}: has no rows; the file is damaged")
    known = [c for c in (*columns, *others) if c in table and c not in NAMES]
    if "seen" in known and table["seen"].dtype != bool:
        raise ValueError(f"{path}: seen should be True or False; the file is damaged")
    if text := [c for c in known if not pd.api.types.is_numeric_dtype(table[c])]:
        raise ValueError(f"{path}: {', '.join(text)} should be numbers; the file is damaged")
    return table


def _k(path: Path) -> int | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["scalars"]["ranking/k"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return told if isinstance(told, int) and told > 0 else None


def _with_all_channels(steps: list[Step]) -> tuple[list[Step], list[str]]:
    """Without steps that rank some of the channels of another one: their tables were shortened."""
    full = {_channels(step) for step in steps}
    short = {channels for channels in full if any(channels < other for other in full)}
    cut = [
        f"The checkpoint of step {step.number:,} is left out: its ranking holds "
        f"{len(step.ranking):,} of the channels that another one holds, so it is cut off."
        for step in steps
        if _channels(step) in short
    ]
    return [step for step in steps if _channels(step) not in short], cut


def _channels(step: Step) -> frozenset[tuple[str, int]]:
    return frozenset(zip(step.ranking["layer"], step.ranking["channel"], strict=True))


#: What tells how a checkpoint was analysed; `weights` names the checkpoint and always differs.
PROTOCOL = ("protocol", "crop", "resize", "relevance", "seed")
STABILITY = (
    "compared", "step", "other_step", "k", "overlap", "share", "by_chance", "p_by_chance",
    "within_layers", "p_within_layers", "spearman",
)  # fmt: skip


def top_channels(steps: Sequence[Step], k: int) -> pd.DataFrame:
    """The final top k channels at every step: rank, omega with its interval, `in_top`."""
    final = steps[-1].ranking.head(k)[["layer", "channel", "rank"]]
    rows = []
    for step in steps:
        columns = ["layer", "channel", "rank", "omega", "omega_low", "omega_high", "images"]
        now = step.ranking[[*columns, *(c for c in PROTOCOL if c in step.ranking)]]
        part = final.rename(columns={"rank": "rank_final"}).merge(now, on=["layer", "channel"])
        part.insert(0, "step", step.number)
        part.insert(list(part).index("rank") + 1, "in_top", part["rank"] <= k)
        rows.append(part)
    return pd.concat(rows, ignore_index=True)


def stability(steps: Sequence[Step], k: int) -> pd.DataFrame:
    """Each step beside the next one and beside the final one: overlap at k, chance, Spearman.

    Columns as in `ranking_agreement.overlap_table`, and `spearman` of omega over all channels.
    """
    channels = steps[-1].ranking[["layer", "channel"]].sort_values(["layer", "channel"])
    place = pd.Series(range(len(channels)), pd.MultiIndex.from_frame(channels))
    groups = pd.factorize(channels["layer"])[0].astype(np.int64)
    orders, omegas = [], []
    for step in steps:
        order = place.loc[pd.MultiIndex.from_frame(step.ranking[["layer", "channel"]])].to_numpy()
        orders.append(order.astype(np.int64))
        omegas.append(step.ranking["omega"].to_numpy(float)[np.argsort(order)])
    last = len(steps) - 1
    pairs = [("next", i, i + 1) for i in range(last)] + [("final", i, last) for i in range(last)]
    rows = []
    for compared, i, j in pairs:
        counts = top_k_overlap(orders[i], orders[j])
        row = overlap_table([k], counts, orders[i], orders[j], groups)
        row = row.assign(
            compared=compared, step=steps[i].number, other_step=steps[j].number,
            spearman=spearman(omegas[i], omegas[j]),
        )  # fmt: skip
        rows.append(row)
    if not rows:
        return pd.DataFrame(columns=STABILITY)
    return pd.concat(rows, ignore_index=True)[list(STABILITY)]


def conditional(steps: Sequence[Step]) -> pd.DataFrame:
    """The conditional shares of every step and generator, as the median test told them."""
    parts = [s.shares.assign(step=s.number) for s in steps if s.shares is not None]
    if not parts:
        return pd.DataFrame(columns=["step", "generator", "share", "images"])
    table = pd.concat(parts, ignore_index=True)
    return table[["step", *(c for c in table if c not in ("step", "weights"))]]


def over_generators(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """A row a step: mean of each column over generators, least and largest as bounds."""
    groups = table.groupby("step", sort=True)
    named: dict[str, pd.Series[Any]] = {"n": groups.size()}
    for column in columns:
        named[column] = groups[column].mean()
        named[f"{column}_low"] = groups[column].min()
        named[f"{column}_high"] = groups[column].max()
    return pd.DataFrame(named).reset_index()


def other_options(steps: Sequence[Step]) -> list[str]:
    """A sentence for each option that not all steps were analysed with alike."""
    told = []
    for column in PROTOCOL:
        values: dict[str, list[int]] = {}
        for step in steps:
            ranked = step.ranking
            value = str(ranked[column].iloc[0]) if column in ranked else "not told"
            values.setdefault(value, []).append(step.number)
        if len(values) > 1:
            each = "; ".join(f"{v} at step {', '.join(map(str, s))}" for v, s in values.items())
            told.append(f"The checkpoints were analysed with other options: {column} is {each}.")
    return told


DRAWN = ("share_separating", "share")


def tell_stability(result: Result, stable: pd.DataFrame, k: int) -> None:
    """Overlap with the final top k, and when half of it was there.

    Args:
        stable: as `emergence_tables.stability` makes it, of two steps or more.
    """
    final = stable[stable["compared"] == "final"]
    last = int(final["other_step"].iloc[0])
    # "There" means that it stays so: a step after which the half was lost again is not told.
    below = final.index[2 * final["overlap"] < k]
    there = final if below.empty else final[final.index > below[-1]]
    if there.empty:
        result.findings.append(
            f"Half of the final top {k} came after step {int(final['step'].iloc[-1]):,}, the "
            f"last checkpoint but one: {int(final['overlap'].iloc[-1])} were there then."
        )
    else:
        row = there.iloc[0]
        first = ", the first analysed one" if len(there) == len(final) else ""
        result.findings.append(
            f"From step {int(row['step']):,} on{first}, at least half of the final top {k} "
            f"(step {last:,}) are in the top {k}: {int(row['overlap'])} then. Chance gives "
            f"{row['by_chance']:.1f}, and {row['within_layers']:.1f} with the layers kept."
        )
    row = final.iloc[-1]
    result.findings.append(
        f"Between the last two checkpoints, {int(row['overlap'])} of {k} stayed; the rank "
        f"correlation (Spearman) of omega over all channels is {row['spearman']:.3f}."
    )
    result.scalars |= {
        "step_of_half": float(there["step"].iloc[0]) if len(there) else float("nan"),
        "overlap_of_last_two": float(row["overlap"]),
        "spearman_of_last_two": float(row["spearman"]),
    }
    following = stable[stable["compared"] == "next"].set_index("step")["share"]
    drawn = final.assign(
        next=final["step"].map(following),
        chance=final["by_chance"] / k,
        within=final["within_layers"] / k,
    )
    words = {"share": "with the final one", "next": "with the next one"}
    chance = {"chance": "final, by chance", "within": "final, by chance within layers"}
    result.figures["stability"] = curves.share_curves(
        drawn, "step", words, f"of the top {k} in both", chance
    )
    result.captions["stability"] = (
        f"Share of the top {k} of a checkpoint that is also in the top {k} of the final one, "
        "and of the next one."
    )


def tell_shares(result: Result, shares: pd.DataFrame) -> None:
    """Conditional shares against steps; where there are none, a warning that says how to get them.

    Args:
        shares: as `emergence_tables.conditional` makes it.
    """
    if shares.empty:
        result.warnings.append(
            "No checkpoint was asked for its color-conditional share: add `median_test` to the "
            "analyses of the callback."
        )
        return
    columns = [c for c in DRAWN if c in shares]
    means = over_generators(shares, columns)
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
        "from the least to the largest."
    )


ABOUT = """
While this detector was trained, its checkpoints were ranked by FF-RS (omega), each with the same
options. Here they are put in a row. "The final top {k}" are the top channels of the last analysed
checkpoint (step {last:,}); it need not be the best one.

How many of the top {k} of a checkpoint are in the final top {k}? Two rankings that know nothing of
each other share k²/n of them. But omega is a share of a layer, so narrow layers are on top in any
ranking: the second line of comparison keeps how many of the top lie in each layer and draws the
channels within the layers by chance. An untrained network has top channels too; that they stay is
no proof that training made them.

The color-conditional share is that of the top channels of each checkpoint itself, not of the final
ones. The paper's median test asks whether responses change without the cue, and is high for nearly
any filter; `separates worse` asks whether it matters for telling generated from real images.
"""
NAMED = 5


@dataclass(frozen=True)
class Emergence(Comparison):
    """Omega, rank stability and conditional share over the checkpoints of one training.

    Args:
        run: folder of the training.
        k: how many top channels; None: as many as the last analysed checkpoint took.

    Raises:
        ValueError: k is no whole number from 1; when asked: no run is named, or it has no analysed
            checkpoints of one detector.
    """

    run: str | None
    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None and (
            isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1
        ):
            raise ValueError(f"analysis.emergence.k={self.k}: expected a whole number from 1")

    def __call__(self) -> Result:
        """Tables `emergence`, `stability` and `conditional_over_time`."""
        if not self.run or not isinstance(self.run, str):
            raise ValueError(
                f"run={self.run}: analysis=emergence needs the folder of one training; pass run=DIR"
            )
        steps, problems = read_steps(self.run)
        k = self._k(steps[-1])
        about = ABOUT.format(k=k, last=steps[-1].number)
        result = Result("How the top channels came to be", about)
        result.warnings = [*problems, *other_options(steps)]
        top = top_channels(steps, k)
        stable, shares = stability(steps, k), conditional(steps)
        result.tables = {"emergence": top, "stability": stable, "conditional_over_time": shares}
        result.scalars = {"k": k, "checkpoints": len(steps)}
        things = top.assign(name=top["layer"] + " #" + top["channel"].astype(str))
        named = things.drop_duplicates("name").nsmallest(NAMED, "rank_final")["name"]
        result.figures["emergence"] = curves.highlighted_lines(
            things, "step", "name", "omega", "omega (share of the layer's relevance)", list(named)
        )
        result.captions["emergence"] = (
            f"Omega of the final top {k} channels. The {len(named)} strongest are named, with 95 % "
            "intervals over images."
        )
        few = [step.number for step in steps if step.ranking["images"].iloc[0] < 30]
        if few:
            result.warnings.append(
                f"At step {', '.join(f'{n:,}' for n in few)} omega rests on fewer than 30 "
                "generated images: part of the change is chance."
            )
        if len(steps) == 1:
            result.warnings.append(
                f"Only one checkpoint was analysed (step {steps[0].number:,}): there is no history "
                "to tell. Save checkpoints more often, with trainer.check_val_every_n_epoch=1 say."
            )
        else:
            tell_stability(result, stable, k)
        tell_shares(result, shares)
        return result

    def _k(self, last: Step) -> int:
        k, n = self.k if self.k is not None else last.k, len(last.ranking)
        if k is None:
            raise ValueError(
                f"run={self.run}: the summary.json of step {last.number} tells no k; pass "
                "analysis.emergence.k=..."
            )
        if k > n:
            raise ValueError(f"analysis.emergence.k={k}: the detector has {n} channels only")
        return k
