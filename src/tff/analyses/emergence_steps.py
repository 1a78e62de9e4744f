"""The analysed checkpoints of a training, read from the folders that the callback wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tff.safe_text import read_table

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
