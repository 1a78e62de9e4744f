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
from scipy.stats import ttest_ind

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
none. It differs from the interval in a report, which is over images, for one trained detector.
Whether the best group beats the next by more than seeds explain is tested by Welch's t test over
seeds, which calls groups that are equal different in at most 5 % of cases; with fewer than {seeds}
seeds in a group it has next to no power, and no verdict is given. The best of several groups was
chosen on the test images, so its AP is somewhat too good.

Do detectors with more color-conditional channels detect unseen generators better, or worse? The
rank correlation (Spearman) is reported with a 95 % bootstrap interval if it is over at least
{correlated} independent values: with fewer, even a strong correlation may be chance. Trainings that
differ only in the seed are not independent, so where some of several groups have several seeds, the
correlation is that of the group means. It does not say that one causes the other.

Only jobs that finished and were analysed count in means and correlations.
"""

#: States of a job. Only finished ones, trained and analysed, are compared.
DONE, NOT_ANALYSED, FAILURE, UNFINISHED, DAMAGED = (
    "finished", "trained, not analysed", "failed", "unfinished", "damaged",
)  # fmt: skip
#: Numbers of a job that are averaged over a group.
MEASURES = (
    "objective", "seen_ap", "unseen_ap", "worst_ap", "ap_drop", "conditional_share",
    "share_losing", "share_gaining", "share_turning", "share_separating",
)  # fmt: skip
SHARES = {
    "share_losing": "share of top channels that separate worse without the cue",
    "conditional_share": "share of top channels whose responses change (median test)",
    "share_separating": "share of top channels that separate worse without the cue or turn round",
}
#: Columns that say how a report was made; they should not differ between reports.
PROTOCOL = (
    "protocol", "crop", "resize", "relevance", "analysis_seed", "cue", "generators",
    TRAINED_IMAGES,
)  # fmt: skip
#: Independent values from which a rank correlation has an interval, and seeds of a group from which
#: it is compared (benchmarks/claims.py).
MIN_CORRELATED, MIN_SEEDS = 10, 3
_FIRST = ("run", "state", "error", "group", "detector", "aug", "seed")
_NUMBERS = (
    "unseen_ap", "unseen_ap_low", "unseen_ap_high", "worst_ap", "worst_ap_low", "worst_ap_high",
    "worst_generator", "seen_ap", "seen_ap_low", "seen_ap_high", "ap_drop", "ap_drop_low",
    "ap_drop_high", "conditional_share", "share_losing", "share_gaining", "share_turning",
    "share_separating", "k", "objective",
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
        about = ABOUT.format(seeds=MIN_SEEDS, correlated=MIN_CORRELATED)
        result = Result("Trainings side by side", about, tables=tables)
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
_OPTIONAL = dict.fromkeys(
    ("share_losing", "share_gaining", "share_turning", "share_separating"), float
)


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
            found |= {c: float(unseen[c].mean()) for c in _OPTIONAL if c in unseen}
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
    groups = {
        "seen": means["seen"].astype(bool),  # its name tells how many they are
        "unseen": means["generator"] == GROUPS["unseen"],
        "worst": means["generator"] == GROUPS["unseen_worst"],
    }
    for name, rows in groups.items():
        found |= _take_interval(means[rows], "ap", f"{name}_ap")
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

    Over `jobs`, and over `group means`. Jobs are not `independent` if some of several groups hold
    more than one. Intervals are from resamples of the jobs (or groups); NaN for fewer than
    `MIN_CORRELATED` independent ones, and for a perfect order, which all resamples share.
    """
    done = _select_compared(jobs)
    means = done.groupby("group", sort=False)[["unseen_ap", *SHARES]].mean()
    independent = len(means) in (1, len(done))
    rows = []
    for share in SHARES:
        for over, part in (("jobs", done), ("group means", means)):
            pairs = part[["unseen_ap", share]].dropna().to_numpy(float)
            counted = over == "group means" or independent
            value, n = spearman(*pairs.T), len(pairs)
            known = counted and n >= MIN_CORRELATED and abs(value) < 1 - 1e-9
            ends = _interval(pairs, draws, seed) if known else (np.nan, np.nan)
            rows.append((share, over, n, counted, value, *ends, draws))
    names = ["share", "over", "n", "independent", "spearman", "spearman_low", "spearman_high"]
    return pd.DataFrame(rows, columns=[*names, "draws"])


def _interval(pairs: Floats, draws: int, seed: int) -> tuple[float, float]:
    """95 % interval of the Spearman correlation of the columns of (n, 2)."""

    def statistic(resamples: Resamples) -> Floats:
        return np.array([spearman(*pairs[rows].T) for rows in resamples])

    resamples = draw_resamples(np.zeros(len(pairs), np.int64), draws, seed)
    return Estimate(spearman(*pairs.T), evaluate_resamples(statistic, resamples)).interval


def compare_best(jobs: pd.DataFrame, best: str, second: str) -> float:
    """p-value of Welch's t test that two groups have equal mean AP on unseen generators, two-sided.

    The best group and the next are known only afterwards. That makes no difference: of two equal
    groups one is always ahead, which the two-sided test counts, and of more than two the leader is
    ahead by less (Gutmann and Maymin, Annals of Statistics 1987). NaN where a group has fewer than
    `MIN_SEEDS` different seeds.
    """
    done = _select_compared(jobs).dropna(subset="unseen_ap").groupby("group")
    samples = [done.get_group(group) for group in (best, second)]
    if min(sample["seed"].nunique() for sample in samples) < MIN_SEEDS:
        return np.nan
    values = [sample["unseen_ap"].to_numpy(float) for sample in samples]
    return float(ttest_ind(*values, equal_var=False).pvalue)


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
        p = compare_best(jobs, best["group"], second["group"])
        verdict = (
            "too few seeds to tell whether it is more than chance, since not both groups have "
            f"{MIN_SEEDS} or more"
            if np.isnan(p)
            else f"more than other seeds explain (Welch's t test over seeds, p = {p:.2g})"
            if p < 0.05
            else f"no more than other seeds may explain (Welch's t test over seeds, p = {p:.2g})"
        )
        result.findings.append(
            f"Next is {_describe_group(second)}. The difference is {lead:.3f}: {verdict}."
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
        # Reports of version 0.1 have no other share of this kind.
        replaced = share == "share_separating" and done["share_losing"].notna().any()
        if each["n"] == 0 or replaced:
            continue
        known = part[part["independent"] & (part["n"] >= MIN_CORRELATED)]
        if known.empty:
            result.warnings.append(
                f"AP and {words}: {each['n']} trainings in {means['n']} groups do not tell whether "
                f"the two are correlated; it takes {MIN_CORRELATED} groups, or as many seeds of a "
                "single one."
            )
        elif np.isfinite(known["spearman"].iloc[0]):
            over, row = next(known.iterrows())
            result.findings.append(
                f"AP on unseen generators against the {words}: rank correlation (Spearman) "
                f"{_describe_correlation(row)} over {row['n']} "
                f"{'trainings' if over == 'jobs' else over}."
            )
            result.scalars[f"spearman_{share}"] = float(row["spearman"])
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
    value, low, high = (row[f"spearman{end}"] for end in ("", "_low", "_high"))
    if np.isnan(low):
        return f"{value:.2f} (a perfect order, which has no bootstrap interval)"
    remark = "" if low > 0 or high < 0 else ", not significant"
    return f"{value:.2f} ({low:.2f} to {high:.2f}{remark})"


def _name_jobs(runs: pd.Series[str]) -> str:
    return f"{'Job' if len(runs) == 1 else f'{len(runs)} jobs:'} {_join_names(list(runs))}"


def _join_names(names: Sequence[str], limit: int = 6) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
