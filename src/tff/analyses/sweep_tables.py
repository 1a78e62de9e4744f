"""Trainings of a sweep -> a table of jobs, one of groups of seeds, one of what goes together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tff.analyses.side_by_side import distinct
from tff.analyses.sweep_job import DAMAGED, DONE, FAILURE, job
from tff.analyses.sweep_report import PROTOCOL
from tff.analyses.sweep_settings import Settings, swept
from tff.statistics.bootstrap import Estimate, Resamples, evaluated, resamples
from tff.statistics.rank_agreement import Floats, spearman

#: Numbers of a job of which a group has mean and spread.
MEASURES = (
    "objective", "seen_ap", "unseen_ap", "worst_ap", "ap_drop", "conditional_share",
    "share_separating",
)  # fmt: skip
SHARES = ("share_separating", "conditional_share")
LEAST = 4  # jobs, below which a rank correlation says nothing
FIRST = ("run", "state", "error", "group", "detector", "aug", "seed")
_AFTER = (
    "unseen_ap", "unseen_ap_low", "unseen_ap_high", "worst_ap", "worst_ap_low", "worst_ap_high",
    "worst_generator", "seen_ap", "seen_ap_low", "seen_ap_high", "ap_drop", "ap_drop_low",
    "ap_drop_high", "conditional_share", "share_separating", "k", "objective",
)  # fmt: skip
_LAST = ("seconds", "weights", "checkpoint", *PROTOCOL)


def jobs_table(runs: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """A row a job, and the columns of what was swept besides the seed.

    Args:
        runs: folders of trainings, none twice.
    """
    names = distinct([str(run) for run in runs]) if len(runs) > 1 else [runs[0].name]
    settings, rows = [], []
    for run, name in zip(runs, names, strict=True):
        row = job(run)
        try:
            known = Settings.of(run)
        except ValueError as error:
            known = Settings({}, {}, {})
            row |= {"state": DAMAGED, "error": str(error).splitlines()[0]}
        settings.append(known)
        of_settings = {"detector": known.detector, "aug": known.aug, "seed": known.seed}
        rows.append({"run": name, **of_settings, **row})
    options = swept(settings)
    taken = {*FIRST, *_AFTER, *_LAST, *(key for row in rows for key in row)}
    columns = {key: f"option {key}" if key in taken else key for key in options}
    for row, known in zip(rows, settings, strict=True):
        row |= {columns[key]: known.value(key) for key in options}
    table = pd.DataFrame(rows)
    table["group"] = _labels(table, [*columns.values()])
    numbers = [c for c in (*_AFTER, "seconds") if c != "worst_generator"]
    table = table.reindex(columns=[*table, *(c for c in numbers if c not in table)])
    table[numbers] = table[numbers].astype(float)
    metrics = [c for c in table if str(c).startswith("val/")]
    order = [*FIRST, *columns.values(), *_AFTER, *metrics, *_LAST]
    return table[[c for c in order if c in table]], [*columns.values()]


def _labels(table: pd.DataFrame, options: Sequence[str]) -> pd.Series[str]:
    """What a group is called: detector and augmentations where these differ, and the options."""
    short = {option: option.rpartition(".")[2] for option in options}
    twice = {name for name in short.values() if [*short.values()].count(name) > 1}
    varied = [c for c in ("detector", "aug") if table[c].nunique() > 1]
    parts = [table[c] for c in (varied if varied or options else ["detector", "aug"])]
    for option, name in short.items():
        parts.append((option if name in twice else name) + "=" + table[option])
    return pd.Series([" ".join(words) for words in zip(*parts, strict=True)], table.index, str)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """The jobs that finished and were analysed: only they enter means and correlations."""
    return table[table["state"] == DONE]


def summary(table: pd.DataFrame, options: Sequence[str]) -> pd.DataFrame:
    """A row a group, best mean AP on unseen generators first.

    Columns: what was swept, `jobs`, `failed`, `compared` (finished and analysed), `seeds`, and of
    each of `MEASURES` `_mean`, `_sd` (standard deviation over trainings, n - 1; NaN for one),
    `_min` and `_max`.
    """
    rows = []
    for group, part in table.groupby("group", sort=False):
        done = compared(part)
        row: dict[str, object] = {
            "group": group,
            **{c: part[c].iloc[0] for c in ("detector", "aug", *options)},
            "jobs": len(part),
            "failed": int((part["state"] == FAILURE).sum()),
            "compared": len(done),
            "seeds": done["seed"].nunique(),
        }
        for measure in MEASURES:
            values = done[measure]
            row |= {
                f"{measure}_mean": values.mean(), f"{measure}_sd": values.std(ddof=1),
                f"{measure}_min": values.min(), f"{measure}_max": values.max(),
            }  # fmt: skip
        rows.append(row)
    best_first = pd.DataFrame(rows).sort_values("unseen_ap_mean", ascending=False, kind="stable")
    return best_first.reset_index(drop=True)


def association(table: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Spearman between AP on unseen generators and each conditional share, with intervals.

    Over `jobs`, and over `group means`, since the jobs of one group are no independent looks. The
    intervals are of resamples of the jobs (or groups); NaN where all are in one
    order, since a resample knows no other. All is NaN below `LEAST` of them.
    """
    done = compared(table)
    means = done.groupby("group", sort=False)[["unseen_ap", *SHARES]].mean()
    rows = []
    for share in SHARES:
        for over, part in (("jobs", done), ("group means", means)):
            pairs = part[["unseen_ap", share]].dropna().to_numpy(float)
            found, low, high = _spearman(pairs, draws, seed)
            row = {"share": share, "over": over, "n": len(pairs), "spearman": found}
            rows.append(row | {"spearman_low": low, "spearman_high": high, "draws": draws})
    return pd.DataFrame(rows)


def _spearman(pairs: Floats, draws: int, seed: int) -> tuple[float, float, float]:
    if len(pairs) < LEAST:
        return np.nan, np.nan, np.nan

    def statistic(rows: Resamples) -> Floats:
        return np.array([spearman(*pairs[drawn].T) for drawn in rows])

    everything = np.arange(len(pairs))[None]
    rows = resamples(np.zeros(len(pairs), np.int64), draws, seed)
    found = float(statistic(everything)[0])
    # Resamples of a perfect order are all perfect: that is no sign of certainty.
    if abs(found) > 1 - 1e-9:
        return found, np.nan, np.nan
    return found, *Estimate(found, evaluated(statistic, rows)).ends
