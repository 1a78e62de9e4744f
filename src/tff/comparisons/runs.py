"""Run folders of trainings: where they are, and the options that each training was started with."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.errors import HydraException

from tff.errors import explain
from tff.foreign_files import read_yaml

#: What a training leaves in its folder when it starts, when it ends, and when it fails.
STARTED, FINISHED, FAILED = ".hydra", "finished.json", "failed.json"
#: Options that do not define a training, with all below them: its weights are the same without.
#: Resuming and the names of a sweep's folders depend on it too.
NOT_TRAINING = ("resume", "tags", "logger", "analyze", "analyze_options", "callbacks.analyze")
#: Options with a column of their own, or that say where a training starts from or writes to.
NOT_SWEPT = ("seed", "detector", "detector.name", "aug", "out", "ckpt")
_OPTIONS = 1000  # of a run that are read
_LONGEST = 20_000  # characters of the command of a sweep that are read
_JOBS = 100_000  # values of an option in a sweep
_DEPTH = 3  # folders below that of a sweep in which its jobs are searched


def find_runs(runs: str | Iterable[str] | None) -> list[Path]:
    """Run folders of trainings, each once, in the order of the numbers in their names.

    Args:
        runs: a run folder, a folder of run folders (such as a sweep's), a pattern of folders such
            as `outputs/planted-*`, or several of these.

    Raises:
        FileNotFoundError: a folder does not exist, or nothing matches a pattern.
        ValueError: nothing is named, or a folder holds no training.
    """
    entries = [runs] if isinstance(runs, str) else list(runs or [])
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise ValueError(
            f"runs={runs}: analysis=sweep needs the folder of a sweep, or folders of trainings; "
            "pass runs=DIR or 'runs=[DIR,DIR2]'"
        )
    found = {run.resolve(): run for entry in entries for run in _find_runs(entry)}
    return list(found.values())


def _find_runs(entry: str) -> list[Path]:
    folder = Path(entry).expanduser()
    if folder.is_dir():
        folders = [folder]
    elif glob.has_magic(entry):
        folders = [Path(name) for name in glob.glob(str(folder)) if Path(name).is_dir()]
        if not folders:
            raise FileNotFoundError(f"runs={entry}: no folder matches this pattern")
    else:
        raise FileNotFoundError(f"runs={entry}: there is no such folder")
    seen: set[tuple[int, int]] = set()
    found = (job for one in folders for job in _find_jobs(one, _DEPTH, seen))
    jobs = sorted(found, key=_natural_order)
    if not jobs:
        raise ValueError(
            f"runs={entry}: holds no training; a training is recognized by {STARTED}/ in its folder"
        )
    return jobs


def _find_jobs(folder: Path, depth: int, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """The folder itself if it is a run folder, else those below it; runs are not nested.

    A folder that cannot be read counts as a run folder: who reads it says why.

    Args:
        folder: where to search.
        depth: folders below it to search in.
        seen: folders that were searched, since links may lead back.
    """
    try:
        state = folder.stat()
        # Sorted: of two links to a folder, the same one is taken everywhere.
        entries = {name: os.path.isdir(folder / name) for name in sorted(os.listdir(folder))}
    except OSError:
        yield folder
        return
    if (state.st_dev, state.st_ino) in seen:
        return
    seen.add((state.st_dev, state.st_ino))
    if entries.get(STARTED) or any(entries.get(name) is False for name in (FINISHED, FAILED)):
        yield folder
    elif depth:
        for name in (name for name, is_folder in entries.items() if is_folder):
            yield from _find_jobs(folder / name, depth - 1, seen)


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which job 10 comes after job 9."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def defines_training(option: str) -> bool:
    """Whether an option, as typed or only its key, changes what the training computes.

    False for `logger=wandb`, `+logger.wandb.notes=new`, `analysis@callbacks.analyze.analyses=...`.
    """
    group, _, package = option.partition("=")[0].lstrip("+~").partition("@")
    key = package or group
    return not any(key == one or key.startswith(f"{one}.") for one in NOT_TRAINING)


@dataclass(frozen=True)
class RunConfig:
    """Options of one training.

    Attributes:
        config: composed configuration, its references unresolved.
        choices: config group -> chosen name.
        overrides: option -> value, as typed on the command line or set by the sweep.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, run: Path) -> RunConfig:
        """Read the files that Hydra left in a run folder; missing ones count as empty.

        Raises:
            ValueError: a file cannot be read; the message names it.
        """
        folder = run / STARTED
        choices = _entry(_load_yaml(folder / "hydra.yaml"), "hydra", "runtime", "choices")
        typed = _load_yaml(folder / "overrides.yaml") or []
        if not isinstance(typed, list):
            raise ValueError(f"{folder / 'overrides.yaml'}: is no list of options")
        if len(typed) > _OPTIONS:
            raise ValueError(f"{folder / 'overrides.yaml'}: more than {_OPTIONS} options")
        pairs = [str(option).lstrip("+~").partition("=") for option in typed]
        config = _entry(_load_yaml(folder / "config.yaml"))
        return cls(config, choices, {key: value for key, _, value in pairs})

    def value(self, key: str) -> str:
        """Value of an option as text, the same however it was typed; empty if unknown."""
        if key in self.choices:
            found = self.choices[key]
        else:
            found = self.config
            for part in key.split("."):
                if not isinstance(found, Mapping) or part not in found:
                    return self.overrides.get(key, "")
                found = found[part]
        return "null" if found is None else str(found)

    @property
    def detector(self) -> str:
        """Such as `resnet50`, or `timm convnext_tiny` where the group does not name the network."""
        name = _entry(self.config, "detector").get("name")
        chosen = self._choice("detector") or str(name or "unknown")
        return chosen if name in (None, chosen) else f"{chosen} {name}"

    @property
    def aug(self) -> str:
        """Name of the augmentations."""
        return self._choice("aug") or "unknown"

    def _choice(self, group: str) -> str:
        found = self.choices.get(group)
        return str(found if found is not None else self.overrides.get(group, ""))


def find_swept_options(configs: Sequence[RunConfig]) -> list[str]:
    """Options that were set and differ between trainings, in the order in which they occur.

    Without `NOT_SWEPT` and options that do not define a training. Trainings without any known
    option are ignored.
    """
    known = [one for one in configs if one.config or one.overrides]
    keys = dict.fromkeys(key for one in known for key in one.overrides)
    own = [key for key in keys if key not in NOT_SWEPT and defines_training(key)]
    return [key for key in own if len({one.value(key) for one in known}) > 1]


def count_requested_jobs(sweep: Path) -> int | None:
    """Number of jobs in the command of a sweep, from its folder; None if it cannot be known."""
    try:
        hydra = _entry(_load_yaml(sweep / "multirun.yaml"), "hydra")
    except ValueError:
        return None
    sweeper = _entry(hydra, "sweeper")
    if not str(sweeper.get("_target_")).endswith(".BasicSweeper"):  # Optuna decides on its way
        return None
    # What defines no training gives jobs of their own only where the names of folders hold it.
    named = re.findall(r"[^\s']+", str(_entry(hydra, "sweep").get("subdir")).partition("'")[2])
    options = [f"{key}={value}" for key, value in _entry(sweeper, "params").items()]
    typed = _entry(hydra, "overrides").get("task")
    options += map(str, typed) if isinstance(typed, list) else []
    if sum(map(len, options)) > _LONGEST:  # it is parsed slowly
        return None
    try:
        values = {
            one.get_key_element(): _count_values(one)
            for one in OverridesParser.create().parse_overrides(options)
            if one.is_sweep_override()
            and (defines_training(key := one.get_key_element()) or key in named)
        }
    # Such as glob(*), which needs the composed configuration; or whatever a forged file leads to.
    except (HydraException, ValueError, ArithmeticError, TypeError, RecursionError):
        return None
    return math.prod(values.values())


def _count_values(option: Override) -> int:
    """Number of values in a sweep over an option; ValueError for more than any sweep has."""
    value = option.value()
    if isinstance(value, RangeSweep):  # it may be shuffled, and then would be unfolded
        start, stop = value.start or 0, value.stop or 0
        if not abs(stop - start) / abs(value.step) <= _JOBS:
            raise ValueError("an endless range")
    return len(list(option.sweep_string_iterator()))


def _load_yaml(path: Path) -> Any:
    try:
        return read_yaml(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(explain(error)) from None


def _entry(found: Any, *keys: str) -> Mapping[str, Any]:
    """The mapping below these keys; empty if there is none."""
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
