"""Trainings of a sweep compared: which options, how much chance, what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tff.analyses.engine.evaluation import GROUPS
from tff.comparisons.checkpoints import shorten_paths
from tff.comparisons.comparison import Comparison
from tff.comparisons.emergence import checked
from tff.comparisons.runs import (
    FAILED,
    FINISHED,
    RunConfig,
    count_requested_jobs,
    find_runs,
    find_swept_options,
)
from tff.plots.scatter import repeated_trainings, scatter_plot
from tff.statistics.bootstrap import Estimate, Resamples, draw_resamples, evaluate_resamples
from tff.statistics.rank_agreement import spearman
from tff.types import Floats, Result

#: What tells how a report was made; a table of several reports should have one value of each.
PROTOCOL = ("protocol", "crop", "resize", "relevance", "analysis_seed", "cue", "generators")
ENDS = ("", "_low", "_high")


def measured(report: Path) -> dict[str, object]:
    """Seen, unseen and worst AP with intervals, AP drop without the cue, conditional shares, k.

    Shares and the AP drop are means over the generators that were never seen. What the report does
    not hold is left out.

    Args:
        report: folder with `tables/`; may be missing.

    Raises:
        ValueError: a table cannot be read, or is of several checkpoints.
    """
    tables = {
        name: _table(report / "tables" / f"{name}.csv")
        for name in ("detection", "ablation", "ablation_summary", "conditional_share")
    }
    found: dict[str, object] = {}
    for name in ("ablation", "detection"):  # the second has intervals of the mean
        if (table := tables[name]) is not None:
            found |= _ap(table)
    if (table := tables["ablation"]) is not None:
        unseen = table[~table["seen"]]
        drop = unseen["ap"] - unseen["ap_ablated"]
        found["ap_drop"] = float(drop.mean())
    if (table := tables["ablation_summary"]) is not None:
        row = table[table["where"] == "unseen"]
        found |= {f"ap_drop{end}": float(row[f"ap_drop{end}"].iloc[0]) for end in ENDS if len(row)}
    if (table := tables["conditional_share"]) is not None:
        unseen = table[~table["seen"]]
        found["conditional_share"] = float(unseen["share"].mean())
        if "share_separating" in table:
            found["share_separating"] = float(unseen["share_separating"].mean())
        found["k"] = int(table["k"].iloc[0])
    for table in tables.values():
        if table is not None:
            said = {"analysis_seed" if c == "seed" else c: str(table[c].iloc[0]) for c in table}
            found |= {c: said[c] for c in ("weights", *PROTOCOL) if c in said and c not in found}
    return found


def _ap(table: pd.DataFrame) -> dict[str, object]:
    """AP of a table with a row a generator; rows of no images are means over generators."""
    single = table[table["images"].notna()]
    overall = table[table["images"].isna()].set_index("generator")
    unseen = single[~single["seen"]]
    found: dict[str, object] = {"generators": ", ".join(sorted(unseen["generator"]))}
    parts = {"seen": single[single["seen"]], "unseen": unseen}
    for name, part in parts.items():
        if len(part):
            found[f"{name}_ap"] = float(part["ap"].mean())
            if len(part) == 1:
                found |= {f"{name}_ap{end}": float(part[f"ap{end}"].iloc[0]) for end in ENDS}
    if unseen["ap"].notna().any():
        worst = unseen.iloc[int(np.nanargmin(unseen["ap"].to_numpy(float)))]
        found["worst_generator"] = str(worst["generator"])
        found |= {f"worst_ap{end}": float(worst[f"ap{end}"]) for end in ENDS}
    for name, where in (("seen", "seen"), ("unseen", "unseen"), ("worst", "unseen_worst")):
        if GROUPS[where] in overall.index:
            row = overall[overall.index == GROUPS[where]]
            found |= {f"{name}_ap{end}": float(row[f"ap{end}"].iloc[0]) for end in ENDS}
    return found


def _table(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    needed = {
        "detection": ("generator", "seen", "images", "ap", "ap_low", "ap_high"),
        "ablation": ("generator", "seen", "images", "ap", "ap_low", "ap_high", "ap_ablated"),
        "ablation_summary": ("where", "ap_drop", "ap_drop_low", "ap_drop_high"),
        "conditional_share": ("generator", "seen", "k", "share"),
    }[path.stem]
    table = checked(path, needed, ["share_separating"])
    if "k" in needed and not np.isfinite(table["k"]).all():
        raise ValueError(f"{path}: k is missing; the file is damaged")
    if "checkpoint" in table and table["checkpoint"].nunique() > 1:
        raise ValueError(
            f"{path}: is of several checkpoints; analyse one training into its own folder"
        )
    return table


#: In words, for the table. Only trainings that finished and were analysed are compared.
DONE, NOT_ANALYSED, FAILURE, UNFINISHED, DAMAGED = (
    "finished", "trained, not analysed", "failed", "unfinished", "damaged",
)  # fmt: skip


def read_job(run: Path) -> dict[str, object]:
    """Columns of one training: state, error, objective, validation metrics, seconds, measures.

    A file that cannot be read makes the state `damaged` and the reason its error: one broken job
    must not hide the others.
    """
    best = run / "checkpoints" / "best.ckpt"
    row: dict[str, object] = {"checkpoint": str(best) if best.is_file() else ""}
    try:
        row = {**_ending(run), **row}
        found = measured(run / "report")
    except (ValueError, OSError) as error:
        return {**row, "state": DAMAGED, "error": _first_line(error)}
    if row["state"] == DONE and not {"seen_ap", "unseen_ap"} & set(found):
        row["state"] = NOT_ANALYSED
    return {**row, **found}


def _ending(run: Path) -> dict[str, object]:
    finished, failed = run / FINISHED, run / FAILED
    if finished.is_file() and failed.is_file():
        # Started again in the same folder: what was written last is how it ended.
        again = finished.stat().st_mtime > failed.stat().st_mtime
        finished, failed = (finished, run / "") if again else (run / "", failed)
    if failed.is_file():
        told = _json(failed)
        kind, error = told.get("type"), _first_line(told.get("error") or "no reason was told")
        return {
            "state": FAILURE,
            "error": f"{kind}: {error}" if kind and not error.startswith(str(kind)) else error,
            "seconds": _number(told.get("seconds")),
        }
    if not finished.is_file():
        return {"state": UNFINISHED, "error": "", **_last_metrics(run)}
    told = _json(finished)
    metrics = told.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    return {
        "state": DONE,
        "error": "",
        "objective": _number(told.get("objective")),
        "seconds": _number(told.get("seconds")),
        **{str(k): _number(v) for k, v in metrics.items() if str(k).startswith("val/")},
    }


def _last_metrics(run: Path) -> dict[str, object]:
    """Validation metrics of a training that is under way, from its log; none without one."""
    path = run / "logs" / "train" / "metrics.csv"
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):  # being written just now, maybe
        return {}
    known = {str(c): table[c].dropna() for c in table if str(c).startswith("val/")}
    return {name: _number(values.iloc[-1]) for name, values in known.items() if len(values)}


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    if not isinstance(told, dict):
        raise ValueError(f"{path}: expected an object with names, found {type(told).__name__}")
    return told


def _number(value: object) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else math.nan  # type: ignore[arg-type]


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


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
    names = shorten_paths([str(run) for run in runs]) if len(runs) > 1 else [runs[0].name]
    settings, rows = [], []
    for run, name in zip(runs, names, strict=True):
        row = read_job(run)
        try:
            known = RunConfig.load(run)
        except ValueError as error:
            known = RunConfig({}, {}, {})
            row |= {"state": DAMAGED, "error": str(error).splitlines()[0]}
        settings.append(known)
        of_settings = {"detector": known.detector, "aug": known.aug, "seed": known.seed}
        rows.append({"run": name, **of_settings, **row})
    options = find_swept_options(settings)
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
    rows = draw_resamples(np.zeros(len(pairs), np.int64), draws, seed)
    found = float(statistic(everything)[0])
    # Resamples of a perfect order are all perfect: that is no sign of certainty.
    if abs(found) > 1 - 1e-9:
        return found, np.nan, np.nan
    return found, *Estimate(found, evaluate_resamples(statistic, rows)).interval


WORDS = {
    "share_separating": "share of top channels that separate worse without the cue",
    "conditional_share": "share of top channels whose responses change (median test)",
}


def tell_groups(result: Result, table: pd.DataFrame, groups: pd.DataFrame) -> None:
    """Which group detects unseen generators best, by how much, and its checkpoint to take."""
    known = groups.dropna(subset="unseen_ap_mean")
    if known.empty:
        return
    best, done = known.iloc[0], compared(table)
    result.findings.append(
        ("Best" if len(known) > 1 else "The only group")
        + f" in mean AP on unseen generators: {_described(best)}."
    )
    if len(known) > 1:
        second = known.iloc[1]
        gap = float(best["unseen_ap_mean"]) - float(second["unseen_ap_mean"])
        spread = np.sqrt(
            (float(best["unseen_ap_sd"]) ** 2 + float(second["unseen_ap_sd"]) ** 2) / 2
        )
        verdict = (
            "how much of that is the seed is unknown, since not both have two seeds or more"
            if np.isnan(spread)
            else f"that is more than the spread over seeds (standard deviation {spread:.3f})"
            if gap > spread
            else f"that is no more than the spread over seeds (standard deviation {spread:.3f}), "
            "so another seed may turn the order"
        )
        result.findings.append(
            f"Next is {_described(second)}. The difference is {gap:.3f}; {verdict}."
        )
    mine = done[(done["group"] == best["group"]) & (done["checkpoint"] != "")]
    if len(mine):
        # By validation: the test images have already chosen the group.
        chosen = mine.sort_values("objective", ascending=False, kind="stable").iloc[0]
        by = "its best in validation" if np.isfinite(chosen["objective"]) else "one of its"
        result.findings.append(f"Checkpoint of this group ({by}): {chosen['checkpoint']}")
    order = {group: i for i, group in enumerate(groups["group"])}
    shown = done.sort_values("group", key=lambda g: g.map(order), kind="stable")
    result.figures["sweep_ap"] = repeated_trainings(
        shown, "group", "unseen_ap", "average precision, mean over unseen generators"
    )
    result.captions["sweep_ap"] = "AP on unseen generators: a dot a training, best group first."
    result.scalars |= {"unseen_ap_best_group": float(best["unseen_ap_mean"])}


def tell_association(result: Result, table: pd.DataFrame, found: pd.DataFrame) -> None:
    """Whether detectors with more conditional channels detect unseen generators better."""
    done = compared(table)
    for share in SHARES:
        part = found[found["share"] == share].set_index("over")
        jobs, means = (part.loc[[over]].iloc[0] for over in ("jobs", "group means"))
        if jobs["n"] == 0:
            continue
        if jobs["n"] < LEAST:
            result.warnings.append(
                f"AP and {WORDS[share]}: only {jobs['n']} trainings have both, too few for a "
                f"correlation (at least {LEAST} are needed)."
            )
        elif np.isfinite(jobs["spearman"]):
            also = f"; over {means['n']} groups (means) {_interval(means)}"
            result.findings.append(
                f"AP on unseen generators against the {WORDS[share]}: rank correlation (Spearman) "
                f"{_interval(jobs)} over {jobs['n']} trainings"
                f"{also if np.isfinite(means['spearman']) else ''}."
            )
            result.scalars[f"spearman_{share}"] = float(jobs["spearman"])
        figure = f"sweep_{share}"
        result.figures[figure] = scatter_plot(
            done, share, "unseen_ap", "group", WORDS[share], "AP, unseen generators"
        )
        result.captions[figure] = (
            "A dot a training. Bars are 95 % intervals of its AP over images, where the report "
            "tells them; they do not hold the spread over seeds."
        )
    if done[list(SHARES)].isna().all(axis=None) and len(done):
        result.warnings.append(
            "No report has conditional shares: analyse the trainings with `median_test` as well."
        )


def names(runs: Sequence[str], most: int = 6) -> str:
    """The first few, and how many more."""
    rest = f" and {len(runs) - most} more" if len(runs) > most else ""
    return ", ".join(runs[:most]) + rest


def _described(group: Mapping[Any, Any] | pd.Series[Any]) -> str:
    count, seeds = int(group["compared"]), int(group["seeds"])
    if count == 1:
        return f"{group['group']} with {group['unseen_ap_mean']:.3f} (one training)"
    return (
        f"{group['group']} with {group['unseen_ap_mean']:.3f} ({count} trainings, {seeds} seeds, "
        f"{group['unseen_ap_min']:.3f} to {group['unseen_ap_max']:.3f}, standard deviation "
        f"{group['unseen_ap_sd']:.3f})"
    )


def _interval(row: Mapping[Any, Any] | pd.Series[Any]) -> str:
    if np.isnan(row["spearman_low"]):
        return f"{row['spearman']:.2f} (a perfect order, of which resampling gives no interval)"
    return f"{row['spearman']:.2f} ({row['spearman_low']:.2f} to {row['spearman_high']:.2f})"


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
        there, meant = find_runs(str(sweep)), count_requested_jobs(sweep)
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


ABOUT = """
Each job is one training, with the report of its best checkpoint. Jobs that differ in nothing but
the seed are a group. AP on unseen generators is the mean over those that were not seen in training.

The spread of a group is the standard deviation over its trainings (n - 1), and there is none of one
training. It is not the interval in a report: that is over images, of one trained detector. With
three seeds a standard deviation is itself known only within a factor of about two or three. The
best of several groups was chosen on the test images, so its AP is somewhat too good.

Do detectors with more color-conditional channels detect unseen generators better, or worse? The
rank correlation (Spearman) over trainings is given with a 95 % bootstrap interval over trainings;
with fewer than about ten it is rough. Trainings of one group are not independent, so the
correlation of group means stands beside it. Neither says that one causes the other.

Only jobs that finished and were analysed count in means and correlations.
"""


@dataclass(frozen=True)
class Sweep(Comparison):
    """Tables of jobs, of groups and of what goes together, over the trainings of a sweep.

    Args:
        runs: as `find_runs` takes them.
        draws: resamples behind each interval.
        seed: of these.

    Raises:
        ValueError, FileNotFoundError: no training is named, or none is there.
    """

    runs: str | Sequence[str] | None
    draws: int = 1000
    seed: int = 0

    def __call__(self) -> Result:
        """Tables `sweep` (a row a job), `sweep_summary` (a group) and `sweep_association`."""
        runs = find_runs(self.runs)
        table, options = jobs_table(runs)
        groups = summary(table, options)
        together = association(table, self.draws, self.seed)
        result = Result("Trainings side by side", ABOUT)
        result.tables = {
            "sweep": table,
            "sweep_summary": groups,
            "sweep_association": together.assign(seed=self.seed),
        }
        states = table["state"].value_counts()
        counted = ", ".join(f"{n} {state}" for state, n in states.items())
        result.findings = [f"{len(table)} jobs in {len(groups)} groups: {counted}."]
        result.scalars = {"jobs": len(table), "groups": len(groups)}
        result.scalars |= {f"jobs {state}": int(n) for state, n in states.items()}
        if DONE not in states:
            result.warnings.append("No job finished and was analysed, so there is nothing to set "
                                   "side by side yet.")  # fmt: skip
        tell_lost(result, table)
        tell_missing(result, runs)
        tell_groups(result, table, groups)
        tell_association(result, table, together)
        tell_doubts(result, table, groups)
        return result
