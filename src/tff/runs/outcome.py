"""What became of a run: a small file in its folder, written when nothing is left to do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# `main` of train.py, which a launcher may send to another process, needs this module, and the
# folder of a job is resolved there.
import tff.runs.names  # noqa: F401
from tff.atomic import write_json
from tff.comparisons.runs import FAILED, FINISHED
from tff.errors import itself, only_gone

#: What is said of a process that has told its reason to the terminal only.
_ENDED = re.compile(r"ended with code \S+; its log tells why$")


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

    Several processes may say so. One that tells of no reason of its own, only that another one is
    gone, does not write over what that one has said; it is noted with the error instead.

    Where even that cannot be written, the error itself matters more.
    """
    path, cause = Path(folder) / FAILED, itself(error)
    with suppress(OSError):
        if (only_gone(cause) or _ENDED.match(str(cause))) and path.is_file():
            with suppress(ValueError, KeyError, TypeError):
                told = json.loads(path.read_text(encoding="utf-8"))
                error.add_note(f"{told['type']}: {told['error']}")
            return
        write_json(path, {"type": type(cause).__name__, "error": str(cause)})


def forget(folder: Path | str) -> None:
    """A run starts: what was said of it before no longer holds."""
    for name in (FINISHED, FAILED):
        (Path(folder) / name).unlink(missing_ok=True)
