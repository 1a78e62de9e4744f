"""One training in a folder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tff.atomic import alone, taken
from tff.runs.ranks import first

LOCK = ".lock"


@contextmanager
def kept(folder: Path | str) -> Iterator[None]:
    """Keep other trainings out of a folder until this one and its analysis end, however they end.

    The first process does so for all others of the job.

    Raises:
        ValueError: another training is going on there.
    """
    if not first():
        yield
        return
    with alone(Path(folder) / LOCK) as ours:
        if not ours:
            raise ValueError(busy(folder))
        yield


def running(folder: Path | str) -> bool:
    """Whether a training is going on in a folder."""
    return taken(Path(folder) / LOCK)


def busy(folder: Path | str) -> str:
    """What is wrong with a folder where a training is going on, and what to do."""
    return (
        f"{folder}: another training is going on in this folder; wait for its end, stop it, or "
        "train in another folder (hydra.run.dir=DIR)"
    )
