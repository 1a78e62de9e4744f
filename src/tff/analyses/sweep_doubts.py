"""What makes a comparison of trainings doubtful: lost jobs, other options, too few seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tff.analyses.runs_of import runs_of
from tff.analyses.sweep_job import DAMAGED, FAILURE, NOT_ANALYSED, UNFINISHED
from tff.analyses.sweep_report import PROTOCOL
from tff.analyses.sweep_settings import asked_for
from tff.analyses.sweep_tables import compared
from tff.analyses.sweep_told import names
from tff.types import Result

_SHOWN = 10


def tell_lost(result: Result, table: pd.DataFrame) -> None:
    """Failed and damaged jobs are alarms with their reasons; others that are left out, warnings."""
    lost = table[table["state"].isin([FAILURE, DAMAGED])]
    result.alarms += [
        f"Job {row['run']} ({row['group']}, seed {row['seed']}) {_verb(row['state'])}: "
        f"{row['error']}"
        for _, row in lost.head(_SHOWN).iterrows()
    ]
    if len(lost) > _SHOWN:
        result.alarms.append(f"And {len(lost) - _SHOWN} more jobs; see the table `sweep`.")
    unfinished = list(table.loc[table["state"] == UNFINISHED, "run"])
    if unfinished:
        result.warnings.append(
            f"{_jobs(unfinished)} neither finished nor failed: killed, or still running. Nothing "
            "of that counts in means and correlations."
        )
    waiting = list(table.loc[table["state"] == NOT_ANALYSED, "run"])
    if waiting:
        result.warnings.append(
            f"{_jobs(waiting)} finished, but the folder has no report with the tables `detection` "
            "or `ablation`: python analyze.py ckpt=RUN/checkpoints/best.ckpt hydra.run.dir=RUN"
        )


def tell_missing(result: Result, runs: Sequence[Path]) -> None:
    """Jobs that never began have no folder, and so no row; the sweep knows how many were meant."""
    for sweep in dict.fromkeys(run.parent for run in runs):
        there, meant = runs_of(str(sweep)), asked_for(sweep)
        # Who names some of its jobs wants no more of them.
        some = len(there) > sum(run.parent == sweep for run in runs)
        if meant is not None and len(there) < meant and not some:
            result.warnings.append(
                f"{meant - len(there)} of {meant} jobs of {sweep} have no folder: the sweep ended "
                "before they began, or they still wait. The same command with resume=auto runs "
                "them."
            )


def tell_doubts(result: Result, table: pd.DataFrame, groups: pd.DataFrame) -> None:
    """What is wrong with the comparison of those that are left."""
    done = compared(table)
    for column in [*PROTOCOL, "k"]:
        values = done[column].dropna() if column in done else pd.Series(dtype=object)
        # Networks of other widths have other k: that is no other option.
        apart = done.loc[values.index].groupby("detector")[column] if column == "k" else None
        if (values.nunique() if apart is None else apart.nunique().max()) > 1:
            some = names([f"{v:g}" if column == "k" else str(v) for v in values.unique()], 3)
            result.warnings.append(
                f"The reports were made with other options, so their numbers are not comparable "
                f"as they are: {column} is {some}."
            )
    for group, part in done.groupby("group", sort=False):
        if part["seed"].duplicated().any():
            seeds = ", ".join(part.loc[part["seed"].duplicated(), "seed"].unique())
            result.warnings.append(
                f"{group}: seed {seeds} was trained more than once, so the spread over seeds "
                "looks smaller than it is, or something else was changed between them."
            )
    single = list(groups.loc[groups["compared"] == 1, "group"])
    if single:
        result.warnings.append(
            f"One training only of {names(single)}: how much the seed matters there is unknown."
        )
    if len(done) and done["unseen_ap"].isna().any():
        result.warnings.append(
            f"{_jobs(list(done.loc[done['unseen_ap'].isna(), 'run']))} met no unseen generator in "
            "the analysis: no AP there."
        )


def _verb(state: str) -> str:
    return "failed" if state == FAILURE else "has a damaged file"


def _jobs(runs: list[str]) -> str:
    return f"{'Job' if len(runs) == 1 else f'{len(runs)} jobs:'} {names(runs)}"
