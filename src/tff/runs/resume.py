"""`resume=auto` without a folder: which former run is meant. Starts in an instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from tff.comparisons.runs import part
from tff.runs.lock import running
from tff.runs.outcome import finished
from tff.runs.writable import require_writable

RUNS, ANALYSES, SWEEPS = (Path("outputs") / name for name in ("train", "analyze", "multirun"))


@dataclass(frozen=True)
class Script:
    """Where the runs of a script are, and what they leave there.

    Args:
        runs: folder of their folders.
        options: file of a run with the options that it was started with.
        done: whether the run in a folder is finished.
    """

    runs: Path
    options: Path
    done: Callable[[Path], bool]


SCRIPTS = {
    "train": Script(RUNS, Path(".hydra/overrides.yaml"), lambda run: finished(run) is not None),
    # Nothing is written after the report, which comes whole.
    "analyze": Script(
        ANALYSES,
        Path(".hydra-analyze/overrides.yaml"),
        lambda run: (run / "report" / "summary.json").is_file(),
    ),
}


def continued(
    arguments: Iterable[str], environ: Mapping[str, str] = os.environ, script: str = "train"
) -> list[str]:
    """Add the folder of the run that the same options have begun, newest first.

    Runs that are finished or still going are left alone; of a sweep, what is finished is not run
    again. A job that SLURM starts once more goes on by itself. An analysis finds its finished
    passes in its folder.

    Args:
        arguments: of the command line, quoted.
        environ: tells whether SLURM has started the job before.
        script: `train` or `analyze`.

    Raises:
        SystemExit: the folder of the run cannot be written to.
    """
    found = _continued(list(arguments), environ, script)
    require_writable(found)
    return found


def _continued(arguments: list[str], environ: Mapping[str, str], script: str) -> list[str]:
    asked = [a.partition("=")[2] for a in arguments if a.startswith("resume=")]
    if not asked and int(environ.get("SLURM_RESTART_COUNT") or 0) > 0:
        asked = ["auto"]
        arguments.append("resume=auto")
    if not asked or asked[-1].lower() not in ("auto", "true"):
        return arguments
    sweep = bool({"-m", "--multirun"} & set(arguments))
    key = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    if any(argument.startswith(f"{key}=") for argument in arguments):
        return arguments
    found = _sweep(arguments, script) if sweep else _run(arguments, SCRIPTS[script])
    return [*arguments, f'{key}="{found}"'] if found else arguments


def _run(arguments: list[str], script: Script) -> Path | None:
    mine = _task(arguments)
    for path in _newest(script.runs, script.options):
        folder, theirs = script.runs / path.relative_to(script.runs).parts[0], _listed(path)
        if theirs is None or _task(theirs) != mine or script.done(folder):
            continue
        if not running(folder):
            return folder
        print(f"Passed over, since it is still going: {folder}", file=sys.stderr)
    return None


def _sweep(arguments: list[str], script: str) -> Path | None:
    mine = _task(arguments)
    for path in _newest(SWEEPS, Path("multirun.yaml")):
        theirs = _listed(path, "hydra", "overrides", "task")
        same = theirs is not None and _task(theirs) == mine
        if same and _found(path, "hydra", "job", "name") == script:
            return path.parent
    return None


def _newest(parent: Path, options: Path) -> list[Path]:
    """The files with the options of the runs in a folder, by the time of their last start.

    Not by the names of their folders: those are not always a date.
    """
    found = []
    for path in parent.glob(f"*/{options}"):
        with suppress(OSError):  # removed just now
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def _task(arguments: Iterable[str]) -> list[str]:
    """The options that make a run what it is, in an order of their own."""
    return sorted(
        argument
        for argument in arguments
        if not argument.startswith(("-", "hydra.", "hydra/")) and part(argument)
    )


def _listed(path: Path, *keys: str) -> list[str] | None:
    """A list of options in a YAML file of Hydra's; None where there is none."""
    found = _found(path, *keys)
    return [str(item) for item in found] if isinstance(found, list) else None


def _found(path: Path, *keys: str) -> object:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found
