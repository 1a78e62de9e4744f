"""Folders of trainings: one, those of a sweep, those that a pattern matches, or a list of these."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

#: What a training leaves when it starts, when it ends, and when it ends with an error.
STARTED, FINISHED, FAILED = ".hydra", "finished.json", "failed.json"
_DEEP = 3  # folders below that of a sweep in which its jobs are looked for


def runs_of(runs: str | Iterable[str] | None) -> list[Path]:
    """The folders of all trainings that are meant, each once, numbered ones in their order.

    Args:
        runs: a folder of a training, or one that holds such folders, as a sweep's does; or a
            pattern such as `outputs/planted-*`, of whose folders those are taken; or several.

    Raises:
        FileNotFoundError: a folder is not there, or nothing matches a pattern.
        ValueError: nothing is named, or there is no training in a folder.
    """
    entries = [runs] if isinstance(runs, str) else list(runs or [])
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise ValueError(
            f"runs={runs}: analysis=sweep needs the folder of a sweep, or folders of trainings; "
            "pass runs=DIR or 'runs=[DIR,DIR2]'"
        )
    found = {run.resolve(): run for entry in entries for run in _of(entry)}
    return list(found.values())


def _of(entry: str) -> list[Path]:
    folder = Path(entry).expanduser()
    if folder.is_dir():
        places = [folder]
    elif glob.has_magic(entry):
        places = [Path(name) for name in glob.glob(str(folder)) if Path(name).is_dir()]
        if not places:
            raise FileNotFoundError(f"runs={entry}: no folder matches this pattern")
    else:
        raise FileNotFoundError(f"runs={entry}: there is no such folder")
    jobs = sorted((job for place in places for job in _jobs(place, _DEEP)), key=_order)
    if not jobs:
        raise ValueError(
            f"runs={entry}: holds no training; its folder, or one of a sweep's, is known by its "
            f"{STARTED}/"
        )
    return jobs


def _jobs(folder: Path, deep: int) -> Iterator[Path]:
    """The folder itself, or what is below it; a training holds no other one."""
    if (folder / STARTED).is_dir() or any((folder / n).is_file() for n in (FINISHED, FAILED)):
        yield folder
    elif deep:
        for below in folder.iterdir():
            if below.is_dir():
                yield from _jobs(below, deep - 1)


def _order(path: Path) -> list[tuple[int, int, str]]:
    """Job 10 comes after job 9."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
