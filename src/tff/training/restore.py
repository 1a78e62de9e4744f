"""What a checkpoint says about the run that made it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tff.data.datamodule import Data
from tff.detectors.checkpoint import build, origin


def data_of(ckpt: str | None) -> Data:
    """The data on which the detector of a checkpoint was trained, without augmentation.

    Raises:
        ValueError: there is no checkpoint, it does not name its data, or it would have a folder
            made outside of the working folder.
    """
    if ckpt is None:
        raise ValueError(
            "ckpt is needed: pass ckpt=..., or data=... to look at the files alone (analysis=audit)"
        )
    settings = origin(ckpt).get("data")
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
