"""Sanity checks: biased files, too few images, a detector at chance level."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tff.analyses.engine.subject import Subject
from tff.data.dataset import Images
from tff.statistics.channel_tests import roc_auc, separability
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


#: Images of each kind from which 95 % intervals of AP cover the true value in at least 90 % of
#: cases (tests/statistics).
FEW = 30


def add_sanity_checks(result: Result, subject: Subject, detector: bool) -> None:
    """Add alarms and warnings about the files, and if requested the detector, to a result."""
    discovery, images = subject.images.discovery, subject.images.test
    result.alarms += format_bias_alarms(format_bias(images, subject.seed))
    if detector:
        result.alarms += chance_level_alarm(subject)
        result.warnings[:0] = few_images_warning(subject)
    sets: dict[str, list[str]] = {}  # remarks on the whole tree once
    for name, lines in (("Discovery", discovery.notes), ("Test", file_warnings(images))):
        for line in lines:
            sets.setdefault(line, []).append(name)
    result.warnings[:0] = [f"{' and '.join(s).capitalize()} images: {n}" for n, s in sets.items()]


def few_images_warning(subject: Subject) -> list[str]:
    """A warning if some generators have too few images for reliable intervals."""
    counts = {
        name: int(np.bincount(subject.labels[at], minlength=2).min())
        for name, at in subject.generators()
    }
    if not (names := [name for name, count in counts.items() if count < FEW]):
        return []
    return [
        f"Fewer than {FEW} real or generated images of {', '.join(names)}: their 95 % intervals "
        "are too narrow and cover the true value in only about 85 % of cases."
    ]


def chance_level_alarm(subject: Subject) -> list[str]:
    """An alarm if the detector is no better than chance on the seen (or else on all) generators."""
    rows = dict(subject.generators())
    names = [name for name in rows if name in subject.seen] or list(rows)
    logits, described = subject.evaluate().logits, []
    for name in names:
        labels = subject.labels[rows[name]]
        if np.bincount(labels, minlength=2).min() < 2:
            return []
        auc, low, high = roc_auc(labels, logits[rows[name]])
        if low > 0.5:
            return []
        described.append(f"{name} (AUC {auc:.2f}, {low:.2f} to {high:.2f})")
    return [
        "The detector separates real from generated images no better than chance: "
        f"{', '.join(described)}. The results below are not meaningful."
    ]
