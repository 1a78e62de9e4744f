"""What a checkpoint says about the run that made it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tff.data.datamodule import Data
from tff.detectors.checkpoint import build, origin


def data_of(ckpt: str | None) -> Data:
    """The data on which the detector of a checkpoint was trained, without augmentation.

    Raises:
        ValueError: there is no checkpoint, or it does not name its data.
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
    data = build(settings, ckpt, "tff.data", augmentation=None, workers=0)
    if not isinstance(data, Data):
        raise ValueError(f"checkpoint {ckpt}: {settings} is no data")
    return data


def fingerprint(path: str) -> str:
    """Name and content of a file in short: `best.ckpt sha256:0123456789ab`."""
    file = Path(path).expanduser()
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return f"{file.name} sha256:{digest[:12]}"
