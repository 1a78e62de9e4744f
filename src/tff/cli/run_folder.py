"""The folder of a run: its name, its lock, its options, its outcome, and resuming it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

# `main` of train.py, which a launcher may send to another process, needs this module, and the
# folder of a job is resolved there.
from tff.atomic import is_locked, lock, write_json
from tff.comparisons.runs import FAILED, FINISHED, defines_training
from tff.errors import explain, is_lost_connection, readable_errors, root_cause

#: Rank, number of processes, and what names the job, by who starts processes. The first process of
#: each node may also be started by hand.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID"),
    "several nodes": ("NODE_RANK", "", ""),
}

#: A process where one of them is above zero is not the first of a training.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def is_rank_zero(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the first one of its job, or the only one."""
    return not any(int(environ.get(rank, 0)) for rank in RANKS)


def share_folder(
    arguments: Iterable[str], script: str, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """The arguments with what keeps the processes of one job together.

    Hydra names the folder of a run by the time at which a process starts; a job needs one for all.
    Processes but the first leave no files of their own.

    Args:
        script: `train` or `analyze`, for the name of the folder.

    Raises:
        SystemExit: there is no name that all processes know.
    """
    arguments = list(arguments)
    for launcher, (rank, world, job) in LAUNCHERS.items():
        if rank in environ and _several(environ, world) and not _interactive(environ):
            given = any(a.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for a in arguments)
            name = environ.get(job, "none")
            if not given and name == "none":
                raise SystemExit(
                    f"Error: several processes ({launcher}) need a folder that all of them know: "
                    "pass hydra.run.dir=DIR"
                )
            folder = [] if given else [f"hydra.run.dir=outputs/{script}/{launcher}-{name}"]
            silent = ["hydra.output_subdir=null", "hydra/job_logging=none"]
            return arguments + folder + (silent if int(environ[rank]) > 0 else [])
    return arguments


def _several(environ: Mapping[str, str], world: str) -> bool:
    """Whether there are others; those that Lightning starts on a node are told the folder."""
    return int(environ.get(world, 1)) > 1 if world else "LOCAL_RANK" not in environ


def _interactive(environ: Mapping[str, str]) -> bool:
    """Whether SLURM has given a shell, in which Lightning starts processes itself."""
    return environ.get("SLURM_JOB_NAME") in ("bash", "interactive") and "RANK" not in environ


LOCK = ".lock"


@contextmanager
def lock_folder(folder: Path | str) -> Iterator[None]:
    """Keep other trainings out of a folder until this one and its analysis end, however they end.

    The first process does so for all others of the job.

    Raises:
        ValueError: another training is going on there.
    """
    if not is_rank_zero():
        yield
        return
    with lock(Path(folder) / LOCK) as ours:
        if not ours:
            raise ValueError(describe_busy(folder))
        yield


def is_running(folder: Path | str) -> bool:
    """Whether a training is going on in a folder."""
    return is_locked(Path(folder) / LOCK)


def describe_busy(folder: Path | str) -> str:
    """What is wrong with a folder where a training is going on, and what to do."""
    return (
        f"{folder}: another training is going on in this folder; wait for its end, stop it, or "
        "train in another folder (hydra.run.dir=DIR)"
    )


#: What is said of a process that has told its reason to the terminal only.
_ENDED = re.compile(r"exited with code \S+; see its log$")


def read_result(folder: Path | str) -> dict[str, Any] | None:
    """`objective`, `metrics`, `seconds` and `overrides` of a run that is done; None: it is not.

    A file that cannot be read counts as none: the run ends again, and writes it anew.
    """
    try:
        found = json.loads((Path(folder) / FINISHED).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) and "objective" in found else None


def write_result(
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


def write_failure(folder: Path | str, error: BaseException) -> None:
    """Say why a run ended before it was done.

    Several processes may say so. One that tells of no reason of its own, only that another one is
    gone, does not write over what that one has said; it is noted with the error instead.

    Where even that cannot be written, the error itself matters more.
    """
    path, cause = Path(folder) / FAILED, root_cause(error)
    with suppress(OSError):
        if (is_lost_connection(cause) or _ENDED.match(str(cause))) and path.is_file():
            with suppress(ValueError, KeyError, TypeError):
                told = json.loads(path.read_text(encoding="utf-8"))
                error.add_note(f"{told['type']}: {told['error']}")
            return
        write_json(path, {"type": type(cause).__name__, "error": str(cause)})


def clear_outcome(folder: Path | str) -> None:
    """A run starts: what was said of it before no longer holds."""
    for name in (FINISHED, FAILED):
        (Path(folder) / name).unlink(missing_ok=True)


FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
_SWEEP = ("-m", "--multirun")
_ROOM = 1 << 14  # bytes: what is written of settings before anything else


def require_writable(arguments: Iterable[str]) -> None:
    """End with one sentence where no file can be written to the folder of the run.

    Hydra would end with the lines of code in which it noticed. Nothing is left behind: the nearest
    folder that is there already is tried.

    Args:
        arguments: of the command line, quoted. With others than `-m` among the options (`--help`)
            nothing is written, and a folder that refers to settings (`${...}`) is not known yet.

    Raises:
        SystemExit: with the reason.
    """
    arguments = list(arguments)
    if any(a.startswith("-") and a not in _SWEEP for a in arguments):
        return
    values = dict(a.split("=", 1) for a in arguments if "=" in a)
    given = values.get(FOLDERS[any(a in _SWEEP for a in arguments)], "outputs")
    if given[:1] == given[-1:] == '"':
        given = given[1:-1].replace('\\"', '"')
    if "${" in given or not given:
        return
    folder = Path(os.path.abspath(given))
    there = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    try:
        os.listdir(there)  # a file is no folder
        with tempfile.TemporaryFile(dir=there, buffering=0) as file:
            file.write(bytes(_ROOM))
    except OSError as error:
        # The name within is one that nobody knows; and /proc calls missing what it does not permit.
        number = errno.EACCES if error.errno == errno.ENOENT else error.errno
        reason = explain(OSError(number, error.strerror, str(there)))
        from tff.safe_text import make_printable  # only here, since it takes a second

        sys.exit(make_printable(f"Error: no run can be kept in {folder}. {reason}", lines=True))


LONGEST = 120
_PLAIN = re.compile(r"[A-Za-z][\w.]*=[\w.-]+", re.A)


def job_folder(options: Iterable[str]) -> str:
    """Name of the folder of a job with these options, without those that are no part of it."""
    return folder_name(",".join(sorted(option for option in options if defines_training(option))))


def folder_name(overrides: str) -> str:
    """`detector=resnet18,seed=1` -> `detector-resnet18+seed-1`.

    Letters, digits and `._+-` only; at most 120 characters. Where that is not enough, names and
    values of options are cut short, and a digest keeps different options apart.

    Args:
        overrides: sorted, with commas between.
    """
    if not overrides:
        return "defaults"
    items = overrides.split(",")
    name = _joined(items)
    if all(_PLAIN.fullmatch(item) for item in items) and len(name) <= LONGEST:
        return name
    if len(name) > LONGEST - 13:  # what differs should still be seen
        name = _joined([_short(item) for item in items])[: LONGEST - 13]
    digest = hashlib.sha256(overrides.encode()).hexdigest()[:12]
    return f"{name.strip('-.') or 'options'}-{digest}"


def _joined(items: list[str]) -> str:
    return re.sub(
        r"[^\w.+-]+", "-", "+".join(item.replace("=", "-", 1) for item in items), flags=re.A
    )


def _short(item: str) -> str:
    """`module.optimizer.lr=0.001` -> `lr=0.001`; of a long value, such as a path, the end."""
    key, _, value = item.partition("=")
    return f"{key.rpartition('.')[2]}={value[-16:]}"


# A launcher that starts processes sends them the settings unresolved; train.py names this module,
# so it is there before they are needed.
OmegaConf.register_new_resolver("tff.folder", job_folder, replace=True)


class ProtectRun(Callback):
    """Looks at the folder of a run before Hydra writes the options of this one there.

    They would replace those of a run that goes on or is finished. Jobs of a sweep are passed over:
    the same folder means the same options, and `main` looks again.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """End with a sentence where the run would be refused.

        Raises:
            SystemExit: after the sentence.
        """
        folder = Path(config.hydra.run.dir)
        with readable_errors():
            if is_rank_zero() and is_running(folder):
                raise ValueError(describe_busy(folder))
            if is_rank_zero() and config.resume:
                require_same_options(folder, config.hydra.overrides.task)


def finished_result(cfg: DictConfig) -> dict[str, Any] | None:
    """What a finished run has left, as `read_result`; None where something is still to be done.

    That may be the analysis alone: the training then goes on at its end, and does no step.

    Raises:
        ValueError: the run was finished with other options, or cannot be gone on with.
    """
    out, now = Path(cfg.out), list(HydraConfig.get().overrides.task)
    if (done := read_result(out)) is None:
        return None
    require_same_options(out, now)
    best, last = (out / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    if not is_analysis_wanted(cfg.analyze) or not best.is_file():
        return done
    same = _of_analysis(done.get("overrides") or ()) == _of_analysis(now)
    if same and (out / "report" / "summary.json").is_file():
        return done
    if not last.is_file():  # it would train on from the best one
        raise ValueError(
            f"{out}: is finished but for the analysis, and {last.name} is gone; analyse it with "
            f"python analyze.py ckpt={best} hydra.run.dir={out}"
        )
    return None


def is_analysis_wanted(analyze: bool | str) -> bool:
    """Whether a training is to be followed by an analysis.

    Args:
        analyze: `auto`: in a sweep, whose page needs it.

    Raises:
        ValueError: it is neither that nor a yes or no.
    """
    if analyze not in (True, False, "auto"):
        raise ValueError(f"analyze={analyze}: expected true, false or auto")
    return HydraConfig.get().mode == RunMode.MULTIRUN if analyze == "auto" else bool(analyze)


def require_same_options(folder: Path, options: Iterable[str]) -> None:
    """Refuse a folder that was finished with other options: it answers for its own only.

    Args:
        folder: of a run, finished or not.
        options: of the command line or the job; what is no part of a run may differ.

    Raises:
        ValueError: with the options that differ.
    """
    then = (read_result(folder) or {}).get("overrides")
    if not isinstance(then, list):
        return
    old, new = _values(then), _values(options)
    differ = [key for key in {**new, **old} if new.get(key) != old.get(key)]
    if differ:
        told = "; ".join(
            f"{key}: {old.get(key, 'not given')} then, {new.get(key, 'not given')} now"
            for key in differ[:5]
        )
        raise ValueError(
            f"{folder}: was finished with other options ({told}). Train in another folder "
            "(hydra.run.dir=DIR), or without resume= to begin this one anew"
        )


def _values(options: Iterable[object]) -> dict[str, str]:
    """Option -> value, of what is part of a run; the last one of an option given twice."""
    split = (str(option).partition("=") for option in options if defines_training(str(option)))
    return {key: value for key, _, value in split}


def _of_analysis(options: Iterable[object]) -> str:
    typed = [str(option) for option in options]
    return next((o for o in reversed(typed) if o.startswith("analyze_options=")), "")


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
    "train": Script(RUNS, Path(".hydra/overrides.yaml"), lambda run: read_result(run) is not None),
    # Nothing is written after the report, which comes whole.
    "analyze": Script(
        ANALYSES,
        Path(".hydra-analyze/overrides.yaml"),
        lambda run: (run / "report" / "summary.json").is_file(),
    ),
}


def resume(
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
        if not is_running(folder):
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
        if not argument.startswith(("-", "hydra.", "hydra/")) and defines_training(argument)
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
