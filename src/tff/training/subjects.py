"""What `analyze.py` looks at: a checkpoint with images, kept passes, files, or reports alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tff.analyses.engine.replay import again, keep
from tff.analyses.engine.subject import Subject
from tff.data.datamodule import Data, Splits
from tff.detectors.checkpoint import load
from tff.training.restore import fingerprint


def subject_of(
    ckpt: str | None,
    make: Callable[..., Subject],
    data: Callable[[], Data],
    discovery: Callable[[], Data],
    *,
    passes: str,
    detector: Any = None,
    images: int | None = None,
    files: bool = False,
    reports: bool = False,
) -> Subject:
    """The subject of one checkpoint, its passes kept; without one, of kept passes or files alone.

    Analyses of reports alone get a subject of nothing: no checkpoint is read and no data are made.

    Args:
        ckpt: path; None takes the passes of an earlier run, where there are such, and else only
            files can be looked at.
        make: `Subject.of` with its options.
        data: makes the data whose test images are looked at.
        discovery: makes the data on whose validation images channels are found.
        passes: folder where passes are kept.
        detector: for a checkpoint that does not tell its own.
        images: at most so many of each generator and label.
        files: whether data was named; without a checkpoint, its files are looked at then, even if
            passes are kept there.
        reports: whether all analyses read reports of earlier runs alone (`Analysis.of_reports`).

    Raises:
        ValueError: a checkpoint is named that no analysis would look at.
        ValueError, FileNotFoundError: as the parts that do the work.
    """
    if reports:
        if ckpt is not None:
            raise ValueError(
                f"ckpt={ckpt}: the chosen analyses read reports of earlier runs and no checkpoint; "
                "leave ckpt out, or choose analyses of a checkpoint as well"
            )
        return make(None, None)
    if ckpt is None:
        place = Path(passes).expanduser()
        kept = place.suffix == ".json" or next(place.rglob("subject-*.json"), None)
        if kept and not files:
            return again(place, make)
        return make(None, data().everything().limited(images))
    known = load(ckpt, detector)
    splits = Splits(discovery().discovery(), data().test()).limited(images)
    return keep(make(known, splits, weights=fingerprint(ckpt)), Path(passes))
