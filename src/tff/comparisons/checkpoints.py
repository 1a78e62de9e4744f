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
from tff.analyses.engine.passes import Cue
from tff.analyses.engine.subject import Subject
from tff.plots import grouped
from tff.statistics.bootstrap import Estimate
from tff.types import Result

ABOUT = """
The same test images, seen by several detectors, as they are and without a cue. Differences from the
first detector are taken image by image, so their intervals are narrower than those of the numbers
themselves; they say how sure a difference is for these trained detectors, not for others trained
alike.
"""


class Analyzed(NamedTuple):
    """A subject, what was asked of it, and the answers."""

    subject: Subject
    analyses: Mapping[str, Analysis]
    results: dict[str, Result]


def combine(runs: Mapping[str, Analyzed]) -> dict[str, Result]:
    """The results of one run as they are; of several, compared and then joined.

    Args:
        runs: by the path of the checkpoint.
    """
    if len(runs) == 1:
        return next(iter(runs.values())).results
    named = dict(zip(shorten_paths(list(runs)), runs.values(), strict=True))
    found = {}
    if all(run.subject.images.test.generators for run in runs.values()):
        found["comparison"] = compare(named)
    for analysis in next(iter(named.values())).results:
        found[analysis] = join({name: run.results[analysis] for name, run in named.items()})
    return found


def list_checkpoints(ckpt: str | Iterable[str] | None) -> list[str | None]:
    """One checkpoint, none, or several.

    Raises:
        ValueError: one is given twice, or none in a list.
    """
    if ckpt is None or isinstance(ckpt, str):
        return [ckpt]
    paths = [str(path) for path in ckpt]
    if not paths:
        raise ValueError("ckpt=[]: name at least one checkpoint")
    shorten_paths(paths)
    return [*paths]


def describe_protocol(runs: Mapping[str, Analyzed]) -> Mapping[str, object]:
    """How all was measured: of one checkpoint with its name, of several a mapping for each."""
    described = {ckpt: run.subject.describe() for ckpt, run in runs.items()}
    if len(runs) > 1:
        return described
    ((ckpt, one),) = described.items()
    return {"checkpoint": ckpt, **one}


def compare(runs: Mapping[str, Analyzed]) -> Result:
    """Table `comparison`: AP of each detector on each generator, with and without cues."""
    rows: list[dict[str, object]] = []
    first: dict[object, Estimate] = {}
    for name, (subject, analyses, _) in runs.items():
        cues: dict[str, Cue | None] = {"as they are": None}
        cues |= {
            f"without {a.ablation.cue}": a.ablation
            for a in analyses.values()
            if isinstance(a, Ablation)
        }
        for words, cue in cues.items():
            scores = Scores.of(subject, subject.evaluate(cue).logits)
            for evaluator in evaluators(subject):
                ap = evaluator.measure(scores)["ap"]
                paths = subject.images.test.manifest["path"].iloc[evaluator.rows]
                # Other images, even as many of the same names, are no pairs.
                key = (evaluator.generator, words, tuple(paths), tuple(evaluator.labels))
                beside = ap - first[key] if key in first else None
                first.setdefault(key, ap)
                rows.append(
                    {"generator": evaluator.generator, "seen": evaluator.seen, "checkpoint": name}
                    | {"input": words}
                    | ap.columns("ap")
                    | (beside.columns("ap_more") if beside else {})
                    | subject.protocol
                )
    table = pd.DataFrame(rows)
    result = Result("Detectors side by side", ABOUT)
    result.tables = {"comparison": table}
    for seen_as, part in table.groupby("input", sort=False):
        means = part.groupby("checkpoint", sort=False)["ap"].mean()
        told = "; ".join(f"{name} {ap:.3f}" for name, ap in means.items())
        result.findings.append(f"Mean AP over generators, {seen_as}: {told}.")
        figure = f"comparison_{str(seen_as).replace(' ', '_')}"
        result.figures[figure] = grouped.grouped_points(
            part, "generator", "checkpoint", "ap", "ap_low", "ap_high", "average precision",
            reference=0.5,
        )  # fmt: skip
        result.captions[figure] = f"Average precision of images {seen_as}."
    return result


def join(results: Mapping[str, Result]) -> Result:
    """The answers of several detectors to one question."""
    one = next(iter(results.values()))
    result = Result(one.title, one.about)
    names = dict.fromkeys(key for of in results.values() for key in of.tables)
    for key in names:
        parts = [
            of.tables[key].assign(checkpoint=name)
            for name, of in results.items()
            if key in of.tables
        ]
        table = pd.concat(parts, ignore_index=True)
        result.tables[key] = table[["checkpoint", *(c for c in table if c != "checkpoint")]]
    for name, of in results.items():
        for into, said in (
            (result.findings, of.findings),
            (result.warnings, of.warnings),
            (result.alarms, of.alarms),
        ):
            into += [f"{name}: {text}" for text in said]
        result.scalars |= {f"{name}/{key}": value for key, value in of.scalars.items()}
        for key, figure in of.figures.items():
            result.figures[f"{key}-{name}"] = figure
            result.captions[f"{key}-{name}"] = f"{name}. {of.captions.get(key, '')}"
    return result


def shorten_paths(paths: list[str]) -> list[str]:
    """What tells paths apart: without the folders that they begin with and the ends they share.

    Raises:
        ValueError: there are none, or two of them are the same one.
    """
    if not paths:
        raise ValueError("ckpt=[]: pass the path of at least one checkpoint")
    if len({PurePath(path) for path in paths}) < len(paths):
        raise ValueError(f"ckpt: the same checkpoint twice in {', '.join(paths)}")
    if len(paths) == 1:
        return paths
    parts = [list(PurePath(path).parts) for path in paths]
    while len({part[-1] for part in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [part[:-1] for part in parts]
    folders = zip(*(part[:-1] for part in parts), strict=False)
    start = len(list(takewhile(lambda names: len(set(names)) == 1, folders)))
    return [str(PurePath(*part[start:])) for part in parts]
