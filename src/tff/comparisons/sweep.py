"""Trainings of a sweep compared: which options are best, how much is chance, what is missing."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from tff.analyses.engine.evaluation import GROUPS
from tff.comparisons.checkpoints import shorten_paths
from tff.comparisons.comparison import Comparison
from tff.comparisons.runs import (
    FAILED,
    FINISHED,
    RunConfig,
    count_requested_jobs,
    find_runs,
    find_swept_options,
)
from tff.errors import explain
from tff.foreign_files import read_file, read_json
from tff.options import PATHS, SEED, checked, whole
from tff.plots.scatter import repeated_trainings, scatter_plot
from tff.report.results import TRAINED_IMAGES, find_trained_images, read_results
from tff.statistics.bootstrap import Estimate, Resamples, draw_resamples, evaluate_resamples
from tff.statistics.rank_agreement import spearman
from tff.types import Floats, Result

ABOUT = """
Each job is one training, with the report of its best checkpoint. Jobs that differ only in the seed
form a group. AP on unseen generators is the mean over those that were not seen in training.

The spread of a group is the standard deviation over its trainings (n - 1); a single training has
none. It differs from the interval in a report, which is over images, for one trained detector. With
three seeds a standard deviation is itself known only within a factor of about two or three. The
best of several groups was chosen on the test images, so its AP is somewhat too good.

Do detectors with more color-conditional channels detect unseen generators better, or worse? The
rank correlation (Spearman) over trainings is given with a 95 % bootstrap interval over trainings;
with fewer than about ten it is rough. Trainings of one group are not independent, so the
correlation of group means is given as well. Neither says that one causes the other.

Only jobs that finished and were analysed count in means and correlations.
"""

#: States of a job. Only finished ones, trained and analysed, are compared.
DONE, NOT_ANALYSED, FAILURE, UNFINISHED, DAMAGED = (
    "finished", "trained, not analysed", "failed", "unfinished", "damaged",
)  # fmt: skip
#: Numbers of a job that are averaged over a group.
MEASURES = (
    "objective", "seen_ap", "unseen_ap", "worst_ap", "ap_drop", "conditional_share",
    "share_separating",
)  # fmt: skip
SHARES = {
    "share_separating": "share of top channels that separate worse without the cue",
    "conditional_share": "share of top channels whose responses change (median test)",
}
#: Columns that say how a report was made; they should not differ between reports.
PROTOCOL = (
    "protocol", "crop", "resize", "relevance", "analysis_seed", "cue", "generators",
    TRAINED_IMAGES,
)  # fmt: skip
MIN_CORRELATED = 4  # trainings; below, a rank correlation says nothing
_FIRST = ("run", "state", "error", "group", "detector", "aug", "seed")
_NUMBERS = (
    "unseen_ap", "unseen_ap_low", "unseen_ap_high", "worst_ap", "worst_ap_low", "worst_ap_high",
    "worst_generator", "seen_ap", "seen_ap_low", "seen_ap_high", "ap_drop", "ap_drop_low",
    "ap_drop_high", "conditional_share", "share_separating", "k", "objective",
)  # fmt: skip
_LAST = ("seconds", "weights", "checkpoint", *PROTOCOL)
_DRAWN = 100  # groups in a figure
_LISTED = 10  # failed jobs that the page names
_LONGEST = 500  # characters of the reason why a job failed
_LOG_LIMIT, _ENDING_LIMIT = 1 << 27, 1 << 20  # bytes of a log of metrics, of a finished.json
_METRICS = 1000  # of a training; each is a column
_INCOMPLETE = {
    UNFINISHED: "neither finished nor failed: killed, or still running. They do not count in means "
    "and correlations.",
    NOT_ANALYSED: "finished, but the folder has no report with the tables `detection` or "
    "`ablation`: python analyze.py ckpt=RUN/checkpoints/best.ckpt hydra.run.dir=RUN",
}


@dataclass(frozen=True)
@checked("analysis.sweep")
class Sweep(Comparison):
    """Comparison of the trainings of a sweep: jobs, groups of jobs, correlations.

    Args:
        runs: folder, pattern or list of them, as for `find_runs`, which may raise when called.
        draws: number of bootstrap resamples behind each interval.
        seed: of the resamples.
    """

    runs: Annotated[str | Sequence[str], PATHS] | None
    draws: Annotated[int, whole(1)] = 1000
    seed: Annotated[int, SEED] = 0

    def __call__(self) -> Result:
        """Tables `sweep` (one row per job), `sweep_summary` (per group), `sweep_association`."""
        runs = find_runs(self.runs)
        jobs, options = tabulate_jobs(runs)
        groups = summarize_groups(jobs, options)
        correlations = correlate_shares(jobs, self.draws, self.seed).assign(seed=self.seed)
        tables = {"sweep": jobs, "sweep_summary": groups, "sweep_association": correlations}
        result = Result("Trainings side by side", ABOUT, tables=tables)
        states = jobs["state"].value_counts()
        counts = ", ".join(f"{n} {state}" for state, n in states.items())
        result.findings = [f"{len(jobs)} jobs in {len(groups)} groups: {counts}."]
        result.scalars = {"jobs": len(jobs), "groups": len(groups)}
        result.scalars |= {f"jobs {state}": int(n) for state, n in states.items()}
        if DONE not in states:
            result.warnings.append(
                "No job has finished and was analysed, so there is nothing to compare yet."
            )
        result.alarms = find_trained_images(tables)
        _report_incomplete(result, jobs)
        result.warnings += find_missing(runs)
        _report_groups(result, jobs, groups)
        _report_correlations(result, jobs, correlations)
        result.warnings += find_pitfalls(jobs, groups)
        return result


def tabulate_jobs(runs: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Table with one row per job, and its columns of options that were swept besides the seed.

    Args:
        runs: folders of trainings, all different.
    """
    names = shorten_paths([str(run) for run in runs]) if len(runs) > 1 else [runs[0].name]
    configs, rows = [], []
    for run, name in zip(runs, names, strict=True):
        row = read_job(run)
        try:
            config = RunConfig.load(run)
        except ValueError as error:
            config = RunConfig()
            row |= {"state": DAMAGED, "error": _first_line(error)}
        configs.append(config)
        row |= {"run": name, "seed": config.value("seed")}
        row |= {"detector": config.detector, "aug": config.aug}
        rows.append(row)
    options = find_swept_options(configs)
    taken = {*_FIRST, *_NUMBERS, *_LAST, *(key for row in rows for key in row)}
    columns = {key: f"option {key}" if key in taken else key for key in options}
    for row, config in zip(rows, configs, strict=True):
        row |= {columns[key]: config.value(key) for key in options}
    table = pd.DataFrame(rows)
    table["group"] = _name_groups(table, [*columns.values()])
    numbers = [c for c in (*_NUMBERS, "seconds") if c != "worst_generator"]
    table[numbers] = table.reindex(columns=numbers).astype(float)
    metrics = [c for c in table if str(c).startswith("val/")]
    order = [*_FIRST, *columns.values(), *_NUMBERS, *metrics, *_LAST]
    return table[[c for c in order if c in table]], [*columns.values()]


def _name_groups(table: pd.DataFrame, options: Sequence[str]) -> pd.Series[str]:
    """Name of each job's group: detector and augmentations where these differ, and the options."""
    short = {option: option.rpartition(".")[2] for option in options}
    ambiguous = {name for name in short.values() if [*short.values()].count(name) > 1}
    varied = [c for c in ("detector", "aug") if table[c].nunique() > 1]
    parts = [table[c] for c in (varied if varied or options else ["detector", "aug"])]
    for option, name in short.items():
        parts.append((option if name in ambiguous else name) + "=" + table[option])
    return pd.Series([" ".join(words) for words in zip(*parts, strict=True)], table.index, str)


def read_job(run: Path) -> dict[str, object]:
    """Columns of one training: state, error, objective, validation metrics, seconds, measures.

    A file that cannot be read makes the state `damaged`, with the reason: one broken job must not
    hide the others.
    """
    best = run / "checkpoints" / "best.ckpt"
    row: dict[str, object] = {"checkpoint": str(best) if os.path.isfile(best) else ""}
    try:
        row |= _read_ending(run)
        measures = read_measures(run / "report")
    except (ValueError, OSError) as error:
        return row | {"state": DAMAGED, "error": _first_line(explain(error) or error)}
    if row["state"] == DONE and not {"seen_ap", "unseen_ap"} & set(measures):
        row["state"] = NOT_ANALYSED
        row["error"] = "" if row["checkpoint"] else "no best.ckpt: no validation chose one"
    return row | measures


def _read_ending(run: Path) -> dict[str, object]:
    """State of a training and what it recorded at its end."""
    endings = [path for path in (run / FAILED, run / FINISHED) if path.exists()]
    if not endings:
        return {"state": UNFINISHED, "error": "", **_read_last_metrics(run)}
    # Both, if it was started again in the same folder: the newer one counts.
    path = max(endings, key=lambda path: path.stat().st_mtime)
    found = read_json(path, _ENDING_LIMIT)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object with names, found {type(found).__name__}")
    seconds = _to_number(found.get("seconds"))
    if path.name == FAILED:
        kind, reason = str(found.get("type") or "")[:_LONGEST], found.get("error")
        words = _first_line(reason or "no reason was recorded")
        words = words if words.startswith(kind) else f"{kind}: {words}"
        return {"state": FAILURE, "error": words, "seconds": seconds}
    metrics = found.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    if len(metrics) > _METRICS:
        raise ValueError(f"{path}: holds {len(metrics):,} metrics, more than any training has")
    row = {"objective": _to_number(found.get("objective")), "seconds": seconds}
    row |= {str(k): _to_number(v) for k, v in metrics.items() if str(k).startswith("val/")}
    # Earlier versions took such a training for finished.
    if math.isnan(row.get("val/loss", 0.0)):
        return {"state": FAILURE, "error": "the training diverged: val/loss is no number", **row}
    return {"state": DONE, "error": "", **row}


def _read_last_metrics(run: Path) -> dict[str, object]:
    """Last validation metrics in the log of a training; empty without a log."""
    try:
        log = read_file(run / "logs" / "train" / "metrics.csv", _LOG_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found: dict[str, object] = {}
    with suppress(csv.Error):  # it may be half written
        for row in csv.DictReader(io.StringIO(log.decode(errors="replace"))):
            for name, value in row.items():
                if str(name).startswith("val/"):
                    with suppress(TypeError, ValueError):  # empty, or no number
                        number = float(value)
                        found |= {} if math.isnan(number) else {name: _to_number(number)}
    return found


def _to_number(value: object) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else math.nan  # type: ignore[arg-type]


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:_LONGEST] if lines else type(error).__name__


#: Tables of a report that are read, and the columns that they need.
_AP = {
    "generator": str,
    "seen": bool,
    **dict.fromkeys(("images", "ap", "ap_low", "ap_high"), float),
}
_TABLES: dict[str, dict[str, type]] = {
    "ablation": _AP | {"ap_ablated": float},
    "detection": _AP,
    "ablation_summary": {
        "where": str, "ap_drop": float, "ap_drop_low": float, "ap_drop_high": float
    },
    "conditional_share": {"generator": str, "seen": bool, "k": int, "share": float},
}  # fmt: skip
_OPTIONAL = {"share_separating": float}


def read_measures(report: Path) -> dict[str, object]:
    """Measures and protocol of one report: APs with intervals, AP drop, conditional shares, k.

    Shares and the AP drop are means over unseen generators. Measures whose table is missing are
    absent.

    Args:
        report: folder of the report; may be missing.

    Raises:
        ValueError: the report cannot be read, or is of several checkpoints.
    """
    results = read_results(report)
    tables: dict[str, pd.DataFrame] = {}
    found: dict[str, object] = {}
    for name, columns in _TABLES.items():
        if (table := results.table(name, columns, _OPTIONAL)) is None:
            continue
        tables[name] = table
        if "checkpoint" in table and table["checkpoint"].nunique() > 1:
            raise ValueError(
                f"{report}: table {name} is of several checkpoints; analyse one training into its "
                "own folder"
            )
        if name in ("ablation", "detection"):  # the later one has intervals of the means
            found |= _measure_ap(table)
        if name == "ablation":
            unseen = table[~table["seen"]]
            found["ap_drop"] = float((unseen["ap"] - unseen["ap_ablated"]).mean())
        elif name == "ablation_summary":
            found |= _take_interval(table[table["where"] == "unseen"], "ap_drop", "ap_drop")
        elif name == "conditional_share":
            unseen = table[~table["seen"]]
            found["conditional_share"] = float(unseen["share"].mean())
            if "share_separating" in unseen:
                found["share_separating"] = float(unseen["share_separating"].mean())
            found["k"] = int(table["k"].iloc[0])
    for table in tables.values():
        first = {"analysis_seed" if c == "seed" else c: str(table[c].iloc[0]) for c in table}
        found |= {c: first[c] for c in ("weights", *PROTOCOL) if c in first and c not in found}
    return found


def _measure_ap(table: pd.DataFrame) -> dict[str, object]:
    """AP on seen generators, unseen ones and the worst of these.

    Rows of the table without a number of images are means over generators.
    """
    single = table[table["images"].notna()]
    unseen = single[~single["seen"]]
    found: dict[str, object] = {"generators": ", ".join(sorted(unseen["generator"]))}
    for name, part in (("seen", single[single["seen"]]), ("unseen", unseen)):
        if len(part) == 1:
            found |= _take_interval(part, "ap", f"{name}_ap")
        elif len(part):
            found[f"{name}_ap"] = float(part["ap"].mean())
    if unseen["ap"].notna().any():
        worst = unseen.loc[[unseen["ap"].idxmin()]]
        found["worst_generator"] = str(worst["generator"].iloc[0])
        found |= _take_interval(worst, "ap", "worst_ap")
    means = table[table["images"].isna()]
    for name, group in (("seen", "seen"), ("unseen", "unseen"), ("worst", "unseen_worst")):
        found |= _take_interval(means[means["generator"] == GROUPS[group]], "ap", f"{name}_ap")
    return found


def _take_interval(rows: pd.DataFrame, column: str, name: str) -> dict[str, float]:
    """A number of the first row and the ends of its interval; empty without rows."""
    ends = ("", "_low", "_high") if len(rows) else ()
    return {f"{name}{end}": float(rows[f"{column}{end}"].iloc[0]) for end in ends}


def _select_compared(jobs: pd.DataFrame) -> pd.DataFrame:
    """Jobs that finished and were analysed: only they count in means and correlations."""
    return jobs[jobs["state"] == DONE]


def summarize_groups(jobs: pd.DataFrame, options: Sequence[str]) -> pd.DataFrame:
    """Table with one row per group, best mean AP on unseen generators first.

    Columns: the options that were swept; `jobs`, `failed`, `compared` and `seeds`; and for each of
    `MEASURES` `_mean`, `_sd` (standard deviation over trainings, n - 1; NaN for one), `_min` and
    `_max`.
    """
    rows, names = [], ["detector", "aug", *options]
    for group, part in jobs.groupby("group", sort=False):
        done = _select_compared(part)
        counts = {
            "jobs": len(part), "failed": int((part["state"] == FAILURE).sum()),
            "compared": len(done), "seeds": done["seed"].nunique(),
        }  # fmt: skip
        # Not groupby(...).agg, whose sums are rounded differently.
        spread = done[list(MEASURES)].agg(["mean", "std", "min", "max"]).rename({"std": "sd"})
        numbers = {f"{m}_{name}": v for m, of in spread.items() for name, v in of.items()}
        rows.append({"group": group, **part.iloc[0][names], **counts, **numbers})
    best_first = pd.DataFrame(rows).sort_values("unseen_ap_mean", ascending=False, kind="stable")
    return best_first.reset_index(drop=True)


def correlate_shares(jobs: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Spearman correlation of AP on unseen generators with each conditional share.

    Over `jobs`, and over `group means`, since jobs of one group are not independent. Intervals are
    from resamples of the jobs (or groups); NaN for a perfect order, which all resamples share. All
    is NaN for fewer than `MIN_CORRELATED`.
    """
    done = _select_compared(jobs)
    means = done.groupby("group", sort=False)[["unseen_ap", *SHARES]].mean()
    rows = []
    for share in SHARES:
        for over, part in (("jobs", done), ("group means", means)):
            pairs = part[["unseen_ap", share]].dropna().to_numpy(float)
            rows.append((share, over, len(pairs), *_correlate(pairs, draws, seed), draws))
    names = ["share", "over", "n", "spearman", "spearman_low", "spearman_high", "draws"]
    return pd.DataFrame(rows, columns=names)


def _correlate(pairs: Floats, draws: int, seed: int) -> tuple[float, float, float]:
    """Spearman correlation of the columns of (n, 2), with a 95 % interval."""
    if len(pairs) < MIN_CORRELATED:
        return np.nan, np.nan, np.nan

    def statistic(resamples: Resamples) -> Floats:
        return np.array([spearman(*pairs[rows].T) for rows in resamples])

    value = spearman(*pairs.T)
    # Resamples of a perfect order are all perfect: that is no sign of certainty.
    if abs(value) > 1 - 1e-9:
        return value, np.nan, np.nan
    resamples = draw_resamples(np.zeros(len(pairs), np.int64), draws, seed)
    return value, *Estimate(value, evaluate_resamples(statistic, resamples)).interval


def find_missing(runs: Sequence[Path]) -> list[str]:
    """A sentence for each sweep some of whose jobs never began, and so have no folder."""
    sentences = []
    for sweep in dict.fromkeys(run.parent for run in runs):
        there, requested = find_runs(str(sweep)), count_requested_jobs(sweep)
        # Somebody who names some of the jobs does not miss the others.
        chosen = len(there) > sum(run.parent == sweep for run in runs)
        if requested is not None and len(there) < requested and not chosen:
            sentences.append(
                f"{requested - len(there)} of {requested} jobs of {sweep} have no folder: the "
                "sweep ended before they began, or they are still waiting. The same command with "
                "resume=auto runs them."
            )
    return sentences


def find_pitfalls(jobs: pd.DataFrame, groups: pd.DataFrame) -> list[str]:
    """A sentence for each reason to doubt the comparison of the finished jobs."""
    done, sentences = _select_compared(jobs), []
    for column in [c for c in (*PROTOCOL, "k") if c in done]:
        # Networks of other widths have another k with the same options.
        comparable = done.groupby("detector" if column == "k" else lambda _: 0)
        if (comparable[column].nunique() > 1).any():
            values = done[column].dropna().unique()
            some = _join_names([f"{v:g}" if column == "k" else str(v) for v in values], 3)
            sentences.append(
                "The reports were made with different options, so their numbers are not "
                f"comparable: {column} is {some}."
            )
    for group, part in done.groupby("group", sort=False):
        if (repeated := part["seed"].duplicated()).any():
            seeds = ", ".join(part.loc[repeated, "seed"].unique())
            sentences.append(
                f"{group}: seed {seeds} was trained more than once, so the spread over seeds "
                "looks smaller than it is, or something else was changed between the trainings."
            )
    if single := list(groups.loc[groups["compared"] == 1, "group"]):
        sentences.append(
            f"Only one training of {_join_names(single)}: the effect of the seed is unknown there."
        )
    if len(without := done.loc[done["unseen_ap"].isna(), "run"]):
        sentences.append(
            f"{_name_jobs(without)}: no AP on unseen generators, since none was among the test "
            "images."
        )
    return sentences


def _report_incomplete(result: Result, jobs: pd.DataFrame) -> None:
    """Failed and damaged jobs are alarms with their reasons; other incomplete jobs, warnings."""
    lost = jobs[jobs["state"].isin([FAILURE, DAMAGED])]
    for _, row in lost.head(_LISTED).iterrows():
        what = "failed" if row["state"] == FAILURE else "has a damaged file"
        result.alarms.append(
            f"Job {row['run']} ({row['group']}, seed {row['seed']}) {what}: {row['error']}"
        )
    if len(lost) > _LISTED:
        result.alarms.append(f"And {len(lost) - _LISTED} more jobs; see the table `sweep`.")
    for state, problem in _INCOMPLETE.items():
        if len(runs := jobs.loc[jobs["state"] == state, "run"]):
            result.warnings.append(f"{_name_jobs(runs)} {problem}")


def _report_groups(result: Result, jobs: pd.DataFrame, groups: pd.DataFrame) -> None:
    """The group that detects unseen generators best, its lead, and its checkpoint to use."""
    known = groups.dropna(subset="unseen_ap_mean")
    if known.empty:
        return
    best, done = known.iloc[0], _select_compared(jobs)
    rank = "Best" if len(known) > 1 else "The only group"
    result.findings.append(f"{rank} in mean AP on unseen generators: {_describe_group(best)}.")
    if len(known) > 1:
        second = known.iloc[1]
        lead = best["unseen_ap_mean"] - second["unseen_ap_mean"]
        spread = np.sqrt(np.mean([row["unseen_ap_sd"] ** 2 for row in (best, second)]))
        deviation = f"the spread over seeds (standard deviation {spread:.3f})"
        verdict = (
            "how much of it the seed explains is unknown, since not both have two seeds or more"
            if np.isnan(spread)
            else f"that is more than {deviation}"
            if lead > spread
            else f"that is no more than {deviation}, so another seed may reverse the order"
        )
        result.findings.append(
            f"Next is {_describe_group(second)}. The difference is {lead:.3f}; {verdict}."
        )
    own = done[(done["group"] == best["group"]) & (done["checkpoint"] != "")]
    if len(own):
        # By validation, since the test images have already chosen the group.
        chosen = own.sort_values("objective", ascending=False, kind="stable").iloc[0]
        by = "its best in validation" if np.isfinite(chosen["objective"]) else "one of its"
        result.findings.append(f"Checkpoint of this group ({by}): {chosen['checkpoint']}")
    shown = groups[["group"]].head(_DRAWN)
    result.figures["sweep_ap"] = repeated_trainings(
        shown.merge(done, on="group"), "group", "unseen_ap",
        "average precision, mean over unseen generators",
    )  # fmt: skip
    result.captions["sweep_ap"] = (
        "AP on unseen generators: one dot per training, best group first"
        + (f"; {len(shown)} of {len(groups)} groups." if len(shown) < len(groups) else ".")
    )
    result.scalars |= {"unseen_ap_best_group": float(best["unseen_ap_mean"])}


def _report_correlations(result: Result, jobs: pd.DataFrame, correlations: pd.DataFrame) -> None:
    """Whether detectors with more conditional channels detect unseen generators better."""
    done = _select_compared(jobs)
    for share, words in SHARES.items():
        part = correlations[correlations["share"] == share].set_index("over")
        each, means = (part.loc[[over]].iloc[0] for over in ("jobs", "group means"))
        if each["n"] == 0:
            continue
        if each["n"] < MIN_CORRELATED:
            result.warnings.append(
                f"AP and {words}: only {each['n']} trainings have both, too few for a correlation "
                f"(at least {MIN_CORRELATED} are needed)."
            )
        elif np.isfinite(each["spearman"]):
            also = f"; over {means['n']} groups (means) {_describe_correlation(means)}"
            result.findings.append(
                f"AP on unseen generators against the {words}: rank correlation (Spearman) "
                f"{_describe_correlation(each)} over {each['n']} trainings"
                f"{also if np.isfinite(means['spearman']) else ''}."
            )
            result.scalars[f"spearman_{share}"] = float(each["spearman"])
        result.figures[f"sweep_{share}"] = scatter_plot(
            done, share, "unseen_ap", "group", words, "AP, unseen generators"
        )
        result.captions[f"sweep_{share}"] = (
            "One dot per training. Bars are 95 % intervals of its AP over images, where the report "
            "gives them; they do not include the spread over seeds."
        )
    if done[list(SHARES)].isna().all(axis=None) and len(done):
        result.warnings.append(
            "No report has conditional shares: analyse the trainings with `median_test` as well."
        )


def _describe_group(group: Mapping[Any, Any] | pd.Series[Any]) -> str:
    count, seeds = int(group["compared"]), int(group["seeds"])
    if count == 1:
        return f"{group['group']} with {group['unseen_ap_mean']:.3f} (one training)"
    return (
        f"{group['group']} with {group['unseen_ap_mean']:.3f} ({count} trainings, {seeds} seeds, "
        f"{group['unseen_ap_min']:.3f} to {group['unseen_ap_max']:.3f}, standard deviation "
        f"{group['unseen_ap_sd']:.3f})"
    )


def _describe_correlation(row: Mapping[Any, Any] | pd.Series[Any]) -> str:
    if np.isnan(row["spearman_low"]):
        return f"{row['spearman']:.2f} (a perfect order, which has no bootstrap interval)"
    return f"{row['spearman']:.2f} ({row['spearman_low']:.2f} to {row['spearman_high']:.2f})"


def _name_jobs(runs: pd.Series[str]) -> str:
    return f"{'Job' if len(runs) == 1 else f'{len(runs)} jobs:'} {_join_names(list(runs))}"


def _join_names(names: Sequence[str], limit: int = 6) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
