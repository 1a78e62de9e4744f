"""Folders of trainings, and the options that each was started with."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

#: What a training leaves when it starts, when it ends, and when it ends with an error.
STARTED, FINISHED, FAILED = ".hydra", "finished.json", "failed.json"
_DEEP = 3  # folders below that of a sweep in which its jobs are looked for


def find_runs(runs: str | Iterable[str] | None) -> list[Path]:
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


#: Columns of their own, or what says where a training went on or wrote to.
NOT_SWEPT = ("seed", "detector", "detector.name", "aug", "out", "ckpt")
#: Options that are no part of a training, with all that is below them: its weights are the same
#: without. Resuming and the names of a sweep's folders go by it too.
NOT_TRAINING = ("resume", "tags", "logger", "analyze", "analyze_options", "callbacks.analyze")


def defines_training(option: str) -> bool:
    """Whether an option, as typed or its key alone, makes a training what it is.

    False for `logger=wandb`, `+logger.wandb.notes=new`, `analysis@callbacks.analyze.analyses=...`.
    """
    group, _, package = option.partition("=")[0].lstrip("+~").partition("@")
    key = package or group
    return not any(key == one or key.startswith(f"{one}.") for one in NOT_TRAINING)


@dataclass(frozen=True)
class RunConfig:
    """Options of one training.

    Attributes:
        config: the composed settings, references unresolved.
        choices: option group -> what was chosen.
        overrides: option -> value, as typed on the command line or set by the sweep.
    """

    config: Mapping[str, Any]
    choices: Mapping[str, Any]
    overrides: Mapping[str, str]

    @classmethod
    def load(cls, run: Path) -> RunConfig:
        """Read them; files that are not there count as empty.

        Raises:
            ValueError: a file cannot be read; the message names it.
        """
        folder = run / STARTED
        hydra = _mapping(_read(folder / "hydra.yaml")).get("hydra")
        typed = _read(folder / "overrides.yaml")
        pairs = [str(o).lstrip("+~").partition("=") for o in typed or []]
        return cls(
            _mapping(_read(folder / "config.yaml")),
            _mapping(_mapping(_mapping(hydra).get("runtime")).get("choices")),
            {key: value for key, _, value in pairs},
        )

    def value(self, key: str) -> str:
        """Of an option, the same words for the same value, however it was typed."""
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
        """Such as `resnet50`, or `timm convnext_tiny` where the group does not tell the network."""
        network = self.config.get("detector")
        name = network.get("name") if isinstance(network, Mapping) else None
        chosen = self._chosen("detector") or str(name or "unknown")
        return chosen if name in (None, chosen) else f"{chosen} {name}"

    @property
    def aug(self) -> str:
        """Name of the augmentations."""
        return self._chosen("aug") or "unknown"

    @property
    def seed(self) -> str:
        """Of the training; text, since a table may hold jobs that do not tell it."""
        return self.value("seed")

    def _chosen(self, group: str) -> str:
        found = self.choices.get(group)
        return str(found if found is not None else self.overrides.get(group, ""))


def find_swept_options(settings: Sequence[RunConfig]) -> list[str]:
    """Options that somebody set and that differ between trainings.

    But for `NOT_SWEPT` and what is no part of a training. Trainings that tell nothing of their
    settings are passed over.
    """
    known = [one for one in settings if one.config or one.overrides]
    keys = dict.fromkeys(key for one in known for key in one.overrides)
    own = [key for key in keys if key not in NOT_SWEPT and defines_training(key)]
    return [key for key in own if len({one.value(key) for one in known}) > 1]


def count_requested_jobs(sweep: Path) -> int | None:
    """How many folders of jobs the command of a sweep asked for; None where that cannot be told.

    Args:
        sweep: its folder, in which Hydra keeps the command.
    """
    try:
        kept = _mapping(_mapping(_read(sweep / "multirun.yaml")).get("hydra"))
    except ValueError:
        return None
    sweeper = _mapping(kept.get("sweeper"))
    if not str(sweeper.get("_target_")).endswith(".BasicSweeper"):  # Optuna chooses as it goes
        return None
    options = [f"{key}={value}" for key, value in _mapping(sweeper.get("params")).items()]
    options += _mapping(kept.get("overrides")).get("task") or []
    try:
        values = {
            one.get_key_element(): len(list(one.sweep_string_iterator()))
            for one in OverridesParser.create().parse_overrides(options)
            if one.is_sweep_override() and defines_training(one.get_key_element())
        }
    except HydraException:  # such as glob(*), which needs the settings to choose from
        return None
    return math.prod(values.values())


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        if not path.read_bytes().endswith(b"\n"):
            raise ValueError("its last line has no end, so it is cut off")
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    # UnicodeDecodeError is a ValueError; a reference that is cut off is none.
    except (YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as settings ({error})") from None


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
