"""Sanity checks: biased files, too few images, a detector at chance level."""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import pandas as pd

from tff.analyses.engine.passes import labels_of
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import OMEGA_OF
from tff.data.dataset import Images
from tff.data.groups import count_units
from tff.statistics.bootstrap import units_by_label
from tff.statistics.channel_tests import AUC, roc_auc, separability
from tff.types import Result

#: Properties of a file's header that a detector could learn instead of "generated".
HEADER = ["format", "mode", "quality", "chroma", "height", "width"]
#: AUC of a classifier of headers above which a set of images is suspect.
ALARM = 0.6


def describe_formats(images: Images) -> pd.DataFrame:
    """Formats, JPEG qualities and sizes of files; a row per generator and kind."""
    rows = []
    for generator in images.generators:
        of_generator = images.manifest.iloc[images.rows_of(generator)]
        for label, part in of_generator.groupby("label"):
            jpeg = part["quality"][part["quality"] > 0]
            rows.append(
                {
                    "generator": generator,
                    "kind": "generated" if label else "real",
                    "images": len(part),
                    "formats": _shares(part["format"]),
                    "modes": _shares(part["mode"]),
                    "jpeg_quality": _range(jpeg),
                    "jpeg_chroma": _shares(part["chroma"][part["chroma"] != ""]),
                    "sizes": _shares(part["height"].astype(str) + "x" + part["width"].astype(str)),
                    "kilobytes": float(part["bytes"].median() / 1000),
                }
            )
    return pd.DataFrame(rows)


def format_bias(images: Images, seed: int = 0) -> pd.DataFrame:
    """AUC with which file headers alone separate real from generated images, per generator.

    With `data.match_format` all files have the same format, so only sizes are used. There are no
    rows for images that are not stored as files.
    """
    columns = ["height", "width"] if images.match_format else HEADER
    rows = []
    for generator in images.generators if set(columns) <= set(images.manifest) else []:
        part = images.manifest.iloc[images.rows_of(generator)]
        auc, low, high = separability(part[columns], part["label"].to_numpy("int64"), seed)
        alarm = bool(auc > ALARM and low > 0.5)
        rows.append((generator, len(part), auc, low, high, alarm))
    return pd.DataFrame(
        rows, columns=["generator", "images", "auc", "auc_low", "auc_high", "alarm"]
    )


def format_bias_alarms(found: pd.DataFrame) -> list[str]:
    """An alarm if file headers separate real from generated images in `format_bias`."""
    suspects = found[found["alarm"].astype(bool)]
    if suspects.empty:
        return []
    names = ", ".join(f"{row.generator} (AUC {row.auc:.2f})" for row in suspects.itertuples())
    return [
        "File format, JPEG quality or size alone separate real from generated images, without the "
        f"pixels: {names}. A detector may have learned that instead. See analysis=audit for "
        "details; data.match_format=true compresses all images alike, data.crop makes all sizes "
        "equal."
    ]


def file_warnings(images: Images) -> list[str]:
    """Warnings about files that are not used, and remarks on a set."""
    lines = []
    if len(images.skipped):
        shown = images.skipped.head(5)
        names = ", ".join(f"{row.path} ({row.problem})" for row in shown.itertuples())
        more = f" and {len(images.skipped) - 5} more" if len(images.skipped) > 5 else ""
        lines.append(
            f"{len(images.skipped)} files could not be read and were skipped: {names}{more}."
        )
    return [*lines, *images.notes]


def _shares(values: pd.Series[str]) -> str:
    """Most frequent values with their shares: `PNG 90 %, JPEG 10 %`."""
    counts = values.value_counts(normalize=True)
    words = [f"{value} {100 * share:.0f} %" for value, share in counts.head(3).items()]
    return ", ".join(words) + (f" and {len(counts) - 3} others" if len(counts) > 3 else "")


def _range(values: pd.Series[int]) -> str:
    if values.empty:
        return ""
    low, middle, high = values.min(), values.median(), values.max()
    return f"{middle:.0f}" if low == high else f"{middle:.0f} ({low} to {high})"


#: ROC area below which a detector is close to chance.
NEAR_CHANCE = 0.6
#: Images of which the detector is sure, below which a ranking by omega is no finding.
FEW_CONFIDENT = 30
#: Images of each kind with fewer of which 95 % intervals span most of what is possible.
FEW = 30
#: Groups of images (`data.group`) of each kind with fewer of which there is a warning.
FEW_GROUPS = 10


def add_sanity_checks(result: Result, subject: Subject, checks: Set[str]) -> None:
    """Add alarms and warnings to a result.

    Args:
        checks: requested ones, see `Analysis.sanity_checks`; those of the files always run.
    """
    discovery, images = subject.images.discovery, subject.images.test
    result.alarms += format_bias_alarms(format_bias(images, subject.seed))
    if "files and detector" in checks:
        result.alarms += chance_level_alarm(subject)
    if checks & {"files and detector", "files and number"}:
        result.warnings[:0] = [*few_images_warning(subject), *few_groups_warning(subject)]
    sets: dict[str, list[str]] = {}  # remarks on the whole tree once
    for name, lines in (("Discovery", discovery.notes), ("Test", file_warnings(images))):
        for line in lines:
            sets.setdefault(line, []).append(name)
    result.warnings[:0] = [f"{' and '.join(s).capitalize()} images: {n}" for n, s in sets.items()]


def few_images_warning(subject: Subject) -> list[str]:
    """A warning if some generators have too few images for narrow intervals."""
    counts = {
        name: int(np.bincount(subject.labels[at], minlength=2).min())
        for name, at in subject.generators()
    }
    if not (names := [name for name, count in counts.items() if count < FEW]):
        return []
    return [
        f"Fewer than {FEW} real or generated images of {', '.join(names)}: with so few, values "
        "change much with the choice of images; go by their 95 % intervals."
    ]


def few_groups_warning(subject: Subject) -> list[str]:
    """Warnings if images come from so few photographs that intervals hardly know their chance."""
    test, discovery = subject.images.test, subject.images.discovery
    sources: dict[tuple[str, bool], list[str]] = {}
    if test.groups is not None:
        for name, rows in subject.generators():
            groups = test.groups[rows]
            if min(units_by_label(subject.labels[rows], groups).values()) < FEW_GROUPS:
                resampled = subject.resampled_groups(rows) is not None
                key = (count_units(len(np.unique(groups)), test.unit), resampled)
                sources.setdefault(key, []).append(name)
    lines = []
    for (found, resampled), names in sources.items():
        consequence = (
            f"Intervals allow for the chance of the {test.unit}s, as far as so few show it."
            if resampled
            else f"No interval here holds the chance of the {test.unit}s: with other {test.unit}s, "
            "all numbers may change by more than their intervals say."
        )
        lines.append(f"The test images of {', '.join(names)} come from {found}. {consequence}")
    if discovery.groups is not None and (n := len(np.unique(discovery.groups))) < FEW_GROUPS:
        lines.append(
            f"Channels are ranked on images of {count_units(n, discovery.unit)}: other "
            f"{discovery.unit}s may rank them otherwise, by more than standard errors say."
        )
    return lines


def chance_level_alarm(subject: Subject) -> list[str]:
    """An alarm if the detector is no better than chance on the seen (or else on all) generators.

    None if there are fewer than two real or generated images of one of them.
    """
    rows = dict(subject.generators())
    names = [name for name in rows if name in subject.seen] or list(rows)
    counts = [np.bincount(subject.labels[rows[name]], minlength=2).min() for name in names]
    if min(counts, default=0) < 2:
        return []
    logits = subject.evaluate().logits
    areas = {name: roc_auc(subject.labels[rows[name]], logits[rows[name]]) for name in names}
    return describe_chance(areas, {name: len(rows[name]) for name in names})


def describe_chance(areas: Mapping[str, AUC], images: Mapping[str, int]) -> list[str]:
    """What intervals of the ROC area say about chance; none if one lies above 0.5.

    An interval that holds 0.5 does not show that the area is 0.5: only its upper end says how far
    above it the area may be.

    Args:
        areas: by generator.
        images: number of them, by generator.
    """
    if any(not area.low <= 0.5 for area in areas.values()):
        return []
    named = ", ".join(
        f"{name} (AUC {area.auc:.2f}, {area.low:.2f} to {area.high:.2f}, {images[name]} images)"
        for name, area in areas.items()
    )
    highest = max(area.high for area in areas.values())
    if highest < 0.5:
        return [
            "The detector is wrong more often than right, as if real and generated images were "
            f"exchanged: {named}. Check the labels of the images before reading on."
        ]
    if highest < NEAR_CHANCE:
        return [
            f"The detector is at chance, or close to it: {named}. There is next to no decision for "
            "the results below to explain."
        ]
    return [
        f"The detector cannot be told from chance with so few images: {named}. Test on more; the "
        "results below may describe noise."
    ]


def few_confident_alarm(subject: Subject) -> list[str]:
    """Alarms if the omega that ranks is a mean over too few images to say which channels lead."""
    alarms, confidence = [], subject.options.confidence
    for kind in OMEGA_OF.get(subject.criterion, ()):
        count = subject.relevance[kind].images
        if count < FEW_CONFIDENT:
            label = int(kind == "fake")
            total = int((labels_of(subject.images.discovery) == label).sum())
            name, limit = (
                ("generated", f">= {confidence:g}") if label else ("real", f"<= {1 - confidence:g}")
            )
            alarms.append(
                f"Omega is a mean over only {count} of {total} {name} images, those with P "
                f"{limit}: with fewer than {FEW_CONFIDENT}, other images may put other channels on "
                "top. Rank on more images, or lower subject.confidence."
            )
    return alarms
