"""What became of a run: a small file in its folder, written when nothing is left to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# `main` of train.py, which a launcher may send to another process, names this module, and the
# folder of a job is resolved there.
import tff.runs.names  # noqa: F401
from tff.whole import write_json

FINISHED, FAILED = "finished.json", "failed.json"


def finished(folder: Path | str) -> dict[str, Any] | None:
    """`objective`, `metrics`, `seconds` and `overrides` of a run that is done; None: it is not.

    A file that cannot be read counts as none: the run ends again, and writes it anew.
    """
    try:
        found = json.loads((Path(folder) / FINISHED).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) and "objective" in found else None


def finish(
    folder: Path | str,
    objective: float | None,
    metrics: Mapping[str, float],
    seconds: float,
    overrides: list[str],
) -> None:
    """Say that all is done.

    Args:
        folder: of the run.
        objective: what a sweep maximises.
        metrics: their last values.
        seconds: since the last start.
        overrides: options given on the command line.
    """
    content = {
        "objective": objective,
        "metrics": dict(metrics),
        "seconds": round(seconds, 1),
        "overrides": overrides,
    }
    write_json(Path(folder) / FINISHED, content)


def fail(folder: Path | str, error: BaseException) -> None:
    """Say why a run ended before it was done.

    Where even that cannot be written, the error itself matters more.
    """
    with suppress(OSError):
        write_json(Path(folder) / FAILED, {"type": type(error).__name__, "error": str(error)})


def forget(folder: Path | str) -> None:
    """A run starts: what was said of it before no longer holds."""
    for name in (FINISHED, FAILED):
        (Path(folder) / name).unlink(missing_ok=True)
