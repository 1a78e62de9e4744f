"""Room on the disk, asked for before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path


def require(folder: Path, needed: int, what: str) -> None:
    """See that so many bytes fit on the disk of a folder.

    Raises:
        ValueError: they do not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: {what} needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free on "
            "this disk; free some, or choose a folder on another disk with to=DIR"
        )
