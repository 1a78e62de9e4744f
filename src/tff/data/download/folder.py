"""The folder that a set is downloaded into: one process at a time, and a record of its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tff.atomic import alone, write_json

RECORD = ".tff-download.json"
LOCK = ".tff-download.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other processes out until this one ends, however it ends.

    Raises:
        ValueError: another process downloads into it, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            ours = stack.enter_context(alone(folder / LOCK))
        except OSError as error:
            raise ValueError(
                f"to={folder}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        if not ours:
            raise ValueError(
                f"to={folder}: another process downloads into this folder; wait for its end, or "
                "choose another folder"
            )
        yield


def recorded(folder: Path) -> dict[str, Any]:
    """What is known of the files: name -> url, bytes, sha256, against, time."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def record(folder: Path, name: str, told: dict[str, Any]) -> None:
    """Add what is known of a file."""
    write_json(folder / RECORD, recorded(folder) | {name: told})
