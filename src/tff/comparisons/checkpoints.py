"""Several checkpoints analysed with the same options, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import PurePath
from typing import NamedTuple

import pandas as pd

from tff.analyses.ablation import Ablation
from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.evaluation import Scores, evaluators
from tff.analyses.engine.passes import CueRemoval
from tff.analyses.engine.subject import Subject
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate, mean
from tff.types import Result

ABOUT = """
Several detectors on the same test images, unchanged and without a cue. Differences from the first
detector are taken image by image, so their intervals are narrower than those of the numbers
themselves. They say how certain a difference is between these trained detectors, not between others
trained in the same way. Each detector is compared with the first one by itself: of twenty that are
equally good, about one will seem better or worse.
"""


class Analyzed(NamedTuple):
    """One checkpoint as a subject, its analyses, and their results by the same names."""

    subject: Subject
    analyses: Mapping[str, Analysis]
    results: dict[str, Result]


def list_checkpoints(ckpt: str | Iterable[str] | None) -> list[str | None]:
    """Paths of one checkpoint or several; [None] without a checkpoint.

    Raises:
        ValueError: a path is given twice, or the list is empty.
    """
    if ckpt is None or isinstance(ckpt, str):
        return [ckpt]
    paths = [str(path) for path in ckpt]
    if not paths:
        raise ValueError("ckpt=[]: pass the path of at least one checkpoint")
    if len({PurePath(path) for path in paths}) < len(paths):
        raise ValueError(f"ckpt: the same checkpoint twice in {', '.join(paths)}")
    return [*paths]


def combine(runs: Mapping[str, Analyzed]) -> dict[str, Result]:
    """Results for one report, by path of the checkpoint; several are compared and joined."""
    if len(runs) == 1:
        return next(iter(runs.values())).results
    named = dict(zip(shorten_paths(list(runs)), runs.values(), strict=True))
    results = {}
    if all(run.subject.images.test.generators for run in runs.values()):
        results["comparison"] = compare(named)
    for analysis in next(iter(named.values())).results:
        results[analysis] = join({name: run.results[analysis] for name, run in named.items()})
    return results


def describe_protocol(runs: Mapping[str, Analyzed]) -> Mapping[str, object]:
    """Protocol of one checkpoint with its path, or protocols of several by path."""
    described = {ckpt: run.subject.describe() for ckpt, run in runs.items()}
    if len(runs) > 1:
        return described
    ((ckpt, protocol),) = described.items()
    return {"checkpoint": ckpt, **protocol}


def compare(runs: Mapping[str, Analyzed]) -> Result:
    """Table `comparison`: AP of each detector on each generator, with and without cues.

    Columns `ap_more` hold the difference from the first detector on the same images.
    """
    rows: list[dict[str, object]] = []
    first: dict[object, Estimate] = {}
    differences: dict[tuple[str, str], list[Estimate]] = {}
    for name, (subject, analyses, _) in runs.items():
        removals = [a.ablation for a in analyses.values() if isinstance(a, Ablation)]
        cues: dict[str, CueRemoval | None] = {"as they are": None}
        cues |= {f"without {ablation.cue}": ablation for ablation in removals}
        for words, cue in cues.items():
            scores = Scores.of(subject, subject.evaluate(cue).logits)
            for evaluator in evaluators(subject):
                ap = evaluator.measure(scores)["ap"]
                paths = subject.images.test.manifest["path"].iloc[evaluator.rows]
                # Images are paired only if they are the same, not merely as many.
                key = (evaluator.generator, words, tuple(paths), tuple(evaluator.labels))
                more = ap - first[key] if key in first else None
                if more and name != next(iter(runs)):
                    differences.setdefault((words, name), []).append(more)
                first.setdefault(key, ap)
                rows.append(
                    {"generator": evaluator.generator, "seen": evaluator.seen, "checkpoint": name}
                    | {"input": words}
                    | ap.columns("ap")
                    | (more.columns("ap_more") if more else {})
                    | subject.protocol
                )
    table = pd.DataFrame(rows)
    result = Result("Detectors side by side", ABOUT, tables={"comparison": table})
    for shown, part in table.groupby("input", sort=False):
        means = part.groupby("checkpoint", sort=False)["ap"].mean()
        values = "; ".join(f"{name} {ap:.3f}" for name, ap in means.items())
        compared = [
            f"{name} {describe_more(mean(found))}"
            for (words, name), found in differences.items()
            if words == shown and len(found) == part["generator"].nunique()
        ]
        lead = f" Compared with {next(iter(runs))}: {'; '.join(compared)}." if compared else ""
        result.findings.append(f"Mean AP over generators, images {shown}: {values}.{lead}")
        figure = f"comparison_{str(shown).replace(' ', '_')}"
        result.figures[figure] = grouped.grouped_points(
            part, "generator", "checkpoint", "ap", "ap_low", "ap_high", "average precision", 0.5
        )
        result.captions[figure] = f"Average precision on images {shown}."
    return result


def describe_more(more: Estimate) -> str:
    """A difference of AP with its 95 % interval, and whether it may be 0."""
    low, high = more.interval
    remark = "" if low > 0 or high < 0 else ", not significant"
    return f"{more.value:+.3f} ({low:+.3f} to {high:+.3f}{remark})"


def join(results: Mapping[str, Result]) -> Result:
    """One result of an analysis from those of several checkpoints, by their names.

    Tables get a column `checkpoint`.
    """
    one = next(iter(results.values()))
    joined = Result(one.title, one.about)
    parts: dict[str, list[pd.DataFrame]] = {}
    for name, result in results.items():
        for key, table in result.tables.items():
            parts.setdefault(key, []).append(table.assign(checkpoint=name))
        joined.findings += [f"{name}: {text}" for text in result.findings]
        joined.warnings += [f"{name}: {text}" for text in result.warnings]
        joined.alarms += [f"{name}: {text}" for text in result.alarms]
        joined.scalars |= {f"{name}/{key}": value for key, value in result.scalars.items()}
        for key, figure in result.figures.items():
            joined.figures[f"{key}-{name}"] = figure
            joined.captions[f"{key}-{name}"] = f"{name}. {result.captions.get(key, '')}"
    for key, tables in parts.items():
        table = pd.concat(tables, ignore_index=True)
        joined.tables[key] = table[["checkpoint", *(c for c in table if c != "checkpoint")]]
    return joined


def shorten_paths(paths: list[str]) -> list[str]:
    """Different paths without the parts that all begin or end with; a single one is unchanged."""
    if len(paths) == 1:
        return paths
    parts = [list(PurePath(path).parts) for path in paths]
    while len({part[-1] for part in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [part[:-1] for part in parts]
    folders = zip(*(part[:-1] for part in parts), strict=False)
    start = len(list(takewhile(lambda names: len(set(names)) == 1, folders)))
    return [str(PurePath(*part[start:])) for part in parts]
