"""A subject, its data and its fingerprint from a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tff.analyses.engine.replay import cache_passes, replay
from tff.analyses.engine.subject import Subject
from tff.data.datamodule import Data, Splits
from tff.detectors.checkpoint import build, load, read_origin


def load_data(ckpt: str | None) -> Data:
    """The data on which the detector of a checkpoint was trained, without augmentation.

    Raises:
        ValueError: there is no checkpoint, it does not name its data, or it would have a folder
            made outside of the working folder.
    """
    if ckpt is None:
        raise ValueError(
            "ckpt is needed: pass ckpt=..., or data=... to look at the files alone (analysis=audit)"
        )
    settings = read_origin(ckpt).get("data")
    if not settings:
        raise ValueError(
            f"checkpoint {ckpt}: does not name its data. Say where images are: for the tests "
            "data=folder data.root=DIR, and for finding the channels (images of the generator that "
            "the detector was trained on) data@discovery=folder discovery.root=DIR"
        )
    if isinstance(settings, Mapping):
        _require_own(settings.get("cache"), ckpt)
    # That `Data` is abstract does not matter: a class derived from it is made.
    kind: type[Data] = Data  # type: ignore[type-abstract]
    return build(settings, ckpt, "tff.data", kind, augmentation=None, workers=0)


def _require_own(cache: object, ckpt: str) -> None:
    """A stranger's file may not choose where folders are made."""
    try:
        place = None if cache is None else Path(str(cache)).expanduser().resolve()
        fits = place is None or place.is_dir() or place.is_relative_to(Path.cwd())
    except (OSError, ValueError, RuntimeError):  # no path at all, or of an unknown user
        fits = False
    if not fits:
        raise ValueError(
            f"checkpoint {ckpt}: would keep what is known of its data in {cache!r}, which is not "
            "there. If you trust the file, make that folder; or name data yourself: data=... "
            "data@discovery=..."
        )


def fingerprint(path: str) -> str:
    """Name and content of a file in short: `best.ckpt sha256:0123456789ab`."""
    file = Path(path).expanduser()
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return f"{file.name} sha256:{digest[:12]}"


def load_subject(
    ckpt: str | None,
    make: Callable[..., Subject],
    data: Callable[[], Data],
    discovery: Callable[[], Data],
    *,
    passes: str,
    detector: Any = None,
    images: int | None = None,
    files: bool = False,
) -> Subject:
    """The subject of one checkpoint, its passes kept; without one, of kept passes or files alone.

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

    Raises:
        ValueError, FileNotFoundError: as the parts that do the work.
    """
    if ckpt is None:
        place = Path(passes).expanduser()
        kept = place.suffix == ".json" or next(place.rglob("subject-*.json"), None)
        if kept and not files:
            return replay(place, make)
        return make(None, data().all_splits().subsample(images))
    known = load(ckpt, detector)
    splits = Splits(discovery().discovery(), data().test()).subsample(images)
    return cache_passes(make(known, splits, weights=fingerprint(ckpt)), Path(passes))
