"""Why the numbers of a report may be worth nothing."""

from __future__ import annotations

import numpy as np

from tff.analyses import formats
from tff.analyses.subject import Subject
from tff.statistics.separability import area
from tff.types import Result


def raise_doubts(result: Result, subject: Subject, detection: bool) -> None:
    """Add to a result what a reader must know of files and detector before anything else.

    Args:
        detection: whether the results rest on what the detector has learned.
    """
    images = subject.images.test
    result.alarms += formats.alarms(formats.bias(images, subject.seed))
    if detection:
        result.alarms += chance(subject)
    result.warnings[:0] = formats.warnings(images)


def chance(subject: Subject) -> list[str]:
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
        auc, low, high = area(labels, logits[rows[name]])
        if low > 0.5:
            return []
        told.append(f"{name} (AUC {auc:.2f}, {low:.2f} to {high:.2f})")
    return [
        "The detector tells real images from generated ones no better than chance: "
        f"{', '.join(told)}. Whatever is found in it below describes noise."
    ]
