"""Why the numbers of a report may be worth nothing."""

from __future__ import annotations

import numpy as np

from tff.analyses import formats
from tff.analyses.subject import Subject
from tff.statistics.channel_tests import area
from tff.types import Result

#: Images of a kind, from which on 95 % intervals of AP hold in 90 % or more of the cases
#: (tests/statistics/test_estimate.py).
FEW = 30


def raise_doubts(result: Result, subject: Subject, detection: bool) -> None:
    """Add to a result what a reader must know of files and detector before anything else.

    Args:
        detection: whether the results rest on what the detector has learned.
    """
    images = subject.images.test
    result.alarms += formats.alarms(formats.bias(images, subject.seed))
    if detection:
        result.alarms += chance(subject)
        result.warnings[:0] = few(subject)
    result.warnings[:0] = formats.warnings(images)


def few(subject: Subject) -> list[str]:
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
