"""Reasons why results may not be meaningful: biased files, few images, a blind detector."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tff.analyses.engine.subject import Subject
from tff.data.dataset import Images
from tff.statistics.channel_tests import roc_auc, separability
from tff.types import Result

#: What a detector could learn instead of "generated": seen in the file's header alone.
HEADER = ["format", "mode", "quality", "chroma", "height", "width"]
#: AUC of the trivial classifier above which a set is suspected.
ALARM = 0.6


def describe_formats(images: Images) -> pd.DataFrame:
    """One row a generator and kind: formats, JPEG qualities, sizes."""
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
    """How well the headers alone tell real from generated, a row a generator.

    Columns `generator`, `images`, `auc`, `auc_low`, `auc_high`, `alarm`. With
    `data.match_format` all files count as of one format; sizes stay.
    """
    columns = ["height", "width"] if images.match_format else HEADER
    rows = []
    files = set(columns) <= set(images.manifest)  # else the set does not come as files
    for generator in images.generators if files else []:
        part = images.manifest.iloc[images.rows_of(generator)]
        auc, low, high = separability(part[columns], part["label"].to_numpy("int64"), seed)
        alarm = bool(auc > ALARM and low > 0.5)
        rows.append((generator, len(part), auc, low, high, alarm))
    return pd.DataFrame(
        rows, columns=["generator", "images", "auc", "auc_low", "auc_high", "alarm"]
    )


def format_bias_alarms(found: pd.DataFrame) -> list[str]:
    """Whether the files, by their `bias`, give away what should be found in the pixels."""
    suspects = found[found["alarm"].astype(bool)]
    if suspects.empty:
        return []
    names = ", ".join(f"{row.generator} (AUC {row.auc:.2f})" for row in suspects.itertuples())
    return [
        "The files alone tell real from generated, by format, JPEG quality or size, without a look "
        f"at the picture: {names}. A detector may have learned that instead. analysis=audit shows "
        "more; data.match_format=true compresses all images alike, data.crop takes sizes away."
    ]


def file_warnings(images: Images) -> list[str]:
    """What else a reader must know of the files: what was left out, what is not as published."""
    lines = []
    if len(images.skipped):
        shown = images.skipped.head(5)
        names = ", ".join(f"{row.path} ({row.problem})" for row in shown.itertuples())
        more = f" and {len(images.skipped) - 5} more" if len(images.skipped) > 5 else ""
        lines.append(f"{len(images.skipped)} files could not be used: {names}{more}.")
    if images.notes:
        lines.append(f"The set is not as published: {'; '.join(images.notes)}.")
    return lines


def _shares(values: pd.Series[str]) -> str:
    """The most frequent values with their shares: `PNG 90 %, JPEG 10 %`."""
    counts = values.value_counts(normalize=True)
    words = [f"{value} {100 * share:.0f} %" for value, share in counts.head(3).items()]
    return ", ".join(words) + (f" and {len(counts) - 3} others" if len(counts) > 3 else "")


def _range(values: pd.Series[int]) -> str:
    if values.empty:
        return ""
    low, middle, high = values.min(), values.median(), values.max()
    return f"{middle:.0f}" if low == high else f"{middle:.0f} ({low} to {high})"


#: Images of a kind, from which on 95 % intervals of AP hold in 90 % or more of the cases
#: (tests/statistics/test_estimate.py).
FEW = 30


def add_sanity_checks(result: Result, subject: Subject, detection: bool) -> None:
    """Add to a result what a reader must know of files and detector before anything else.

    Args:
        detection: whether the results rest on what the detector has learned.
    """
    images = subject.images.test
    result.alarms += format_bias_alarms(format_bias(images, subject.seed))
    if detection:
        result.alarms += chance_level_alarm(subject)
        result.warnings[:0] = few_images_warning(subject)
    result.warnings[:0] = file_warnings(images)


def few_images_warning(subject: Subject) -> list[str]:
    """Whether there are too few images of a kind for intervals that hold what they promise."""
    counts = {
        name: int(np.bincount(subject.labels[at], minlength=2).min())
        for name, at in subject.generators()
    }
    if not (names := [name for name, count in counts.items() if count < FEW]):
        return []
    return [
        f"Fewer than {FEW} real or generated images of {', '.join(names)}: 95 % intervals of so "
        "few are too narrow, and hold in some 85 % of the cases only."
    ]


def chance_level_alarm(subject: Subject) -> list[str]:
    """Whether the detector tells real from generated no better than a coin.

    On the generators on which its channels were found; if none of these is tested, on all.
    """
    rows = dict(subject.generators())
    names = [name for name in rows if name in subject.seen] or list(rows)
    logits, told = subject.evaluate().logits, []
    for name in names:
        labels = subject.labels[rows[name]]
        if np.bincount(labels, minlength=2).min() < 2:
            return []
        auc, low, high = roc_auc(labels, logits[rows[name]])
        if low > 0.5:
            return []
        told.append(f"{name} (AUC {auc:.2f}, {low:.2f} to {high:.2f})")
    return [
        "The detector tells real images from generated ones no better than chance: "
        f"{', '.join(told)}. Whatever is found in it below describes noise."
    ]
