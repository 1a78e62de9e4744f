"""The folder of a run: shared by its processes, named, locked, and resumed; how the run ended.

Imported before everything else by both scripts, so that a mistyped option is reported within a
second: nothing here may import torch.
"""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from tff.atomic import is_locked, lock, write_json
from tff.command_line import is_sweep, quote_paths, unify_paths
from tff.comparisons.runs import FAILED, FINISHED, defines_training
from tff.errors import explain, is_lost_connection, readable_errors, root_cause
from tff.foreign_files import read_json, read_yaml
from tff.options import one_of
from tff.safe_text import make_printable


def prepare_arguments(script: str, arguments: Iterable[str]) -> list[str]:
    """The command line for Hydra: paths quoted, and with the folder of the run where it is known.

    Args:
        script: `train` or `analyze`.
        arguments: as typed.

    Raises:
        SystemExit: processes share no folder, it cannot be written to, or two jobs of a sweep would
            be the same; the message says why.
    """
    arguments = resume_folder(share_folder(quote_paths(arguments), script), script)
    require_writable(arguments)
    return name_jobs(arguments) if script == "train" else arguments


# The processes of a job. Hydra names a folder by the time at which a process starts.

#: Variables with the rank, the number of processes and the name of the job, by launcher. The first
#: process of each node may also be started by hand.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID"),
    "several nodes": ("NODE_RANK", "", ""),
}
#: A process in which one of them is above zero is not the first of its job.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def is_rank_zero(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the first of its job, or the only one."""
    return not any(int(environ.get(rank, 0)) for rank in RANKS)


def was_requeued(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether SLURM has started this job before."""
    return int(environ.get("SLURM_RESTART_COUNT") or 0) > 0


def share_folder(
    arguments: list[str], script: str, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """Add one folder for all processes that a launcher has started; only the first one logs there.

    Args:
        arguments: of the command line.
        script: `train` or `analyze`, for the name of the folder.

    Raises:
        SystemExit: no name is known to all processes.
    """
    # In an interactive shell of SLURM, Lightning starts processes itself.
    shell = environ.get("SLURM_JOB_NAME") in ("bash", "interactive") and "RANK" not in environ
    for launcher, (rank, world, job) in LAUNCHERS.items():
        # Processes that Lightning starts on a node do not count: they get the folder from it.
        several = int(environ.get(world, 1)) > 1 if world else "LOCAL_RANK" not in environ
        if rank in environ and several and not shell:
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


# Resuming: the folder of the newest unfinished run with the same options.

RUNS, ANALYSES, SWEEPS = (Path("outputs") / name for name in ("train", "analyze", "multirun"))


def resume_folder(
    arguments: list[str], script: str, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """With `resume=auto`, add the folder of the newest unfinished run with the same options.

    A job that SLURM has requeued is resumed without that option. A resumed sweep does not run its
    finished jobs again; an analysis reads the cached passes in its folder.

    Args:
        arguments: of the command line, quoted.
        script: `train` or `analyze`.
    """
    resume = [a.partition("=")[2] for a in arguments if a.startswith("resume=")]
    if not resume and was_requeued(environ):
        resume, arguments = ["auto"], [*arguments, "resume=auto"]
    if not resume or resume[-1].lower() not in ("auto", "true"):
        return arguments
    sweep = is_sweep(arguments)
    key = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    if any(argument.startswith(f"{key}=") for argument in arguments):
        return arguments
    found = (_find_sweep if sweep else _find_run)(arguments, script)
    return [*arguments, f'{key}="{found}"'] if found else arguments


def _find_run(arguments: list[str], script: str) -> Path | None:
    runs, subfolder = (RUNS, ".hydra") if script == "train" else (ANALYSES, ".hydra-analyze")
    for path in _sort_by_start(runs.glob(f"*/{subfolder}/overrides.yaml")):
        folder = path.parents[1]
        if not _has_options(_read(path), arguments):
            continue
        if read_result(folder) is not None if script == "train" else _has_report(folder):
            continue
        if not is_running(folder):
            return folder
        text = make_printable(f"Skipped, since it is still running: {folder}")
        print(text, file=sys.stderr)
    return None


def _find_sweep(arguments: list[str], script: str) -> Path | None:
    for path in _sort_by_start(SWEEPS.glob("*/multirun.yaml")):
        same = _has_options(_read(path, "hydra", "overrides", "task"), arguments)
        if same and _read(path, "hydra", "job", "name") == script:
            return path.parent
    return None


def _has_report(folder: Path) -> bool:
    """Whether an analysis is finished: its report is written last, and atomically."""
    return (folder / "report" / "summary.json").is_file()


def _sort_by_start(paths: Iterable[Path]) -> list[Path]:
    """Newest first, by the time at which Hydra wrote the file; names need not be dates."""
    found = []
    for path in paths:
        with suppress(OSError):  # removed in the meantime
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def _has_options(found: object, arguments: Iterable[str]) -> bool:
    """Whether a list from a file of Hydra's holds the options of these that define a run."""

    def select(options: Iterable[object]) -> list[str]:
        texts = (unify_paths(str(option)) for option in options)
        own = (text for text in texts if not text.startswith(("-", "hydra.", "hydra/")))
        return sorted(filter(defines_training, own))

    return isinstance(found, list) and select(found) == select(arguments)


def _read(path: Path, *keys: str) -> object:
    """A value in a YAML file of Hydra's; None if it is missing."""
    try:
        found = read_yaml(path)
    except (OSError, ValueError):
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def require_writable(arguments: list[str]) -> None:
    """Exit with a message where no file can be written to the folder of the run.

    Hydra would exit with a stack trace. Writes a temporary file to the nearest existing folder.

    Args:
        arguments: of the command line, quoted. With flags other than `-m` (`--help`) nothing is
            written, and a folder that refers to other options (`${...}`) is not known yet.

    Raises:
        SystemExit: says why.
    """
    if any(a.startswith("-") and a not in ("-m", "--multirun") for a in arguments):
        return
    values = dict(a.split("=", 1) for a in arguments if "=" in a)
    given = values.get("hydra.sweep.dir" if is_sweep(arguments) else "hydra.run.dir", "outputs")
    if given[:1] == given[-1:] == '"':
        given = given[1:-1].replace('\\"', '"')
    if "${" in given or not given:
        return
    folder = Path(os.path.abspath(given))
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    try:
        os.listdir(existing)  # fails for a file
        with tempfile.TemporaryFile(dir=existing, buffering=0) as file:
            file.write(bytes(1 << 14))  # as much as Hydra writes of options
    except OSError as error:
        # /proc reports a file as missing where it does not permit one.
        number = errno.EACCES if error.errno == errno.ENOENT else error.errno
        reason = explain(OSError(number, error.strerror, str(existing)))
        sys.exit(make_printable(f"Error: cannot write to {folder}. {reason}", lines=True))


# The names of the jobs of a sweep.

LONGEST = 120  # characters
#: In lower case, since some file systems do not tell `A` from `a`; Hydra writes `true` as `True`.
_PLAIN = re.compile(r"[a-z][a-z0-9_.]*=(?:True|False|[a-z0-9_.-]+)")


def name_jobs(arguments: list[str]) -> list[str]:
    """Let the names of a sweep's jobs hold all that is swept, `tags=[a],[b]` too.

    Args:
        arguments: of the command line, quoted.

    Raises:
        SystemExit: a value occurs twice, so that two jobs would be the same and share a folder.
    """
    if not is_sweep(arguments) or any(a.startswith("hydra.sweep.subdir=") for a in arguments):
        return arguments
    swept = []
    for argument in arguments:
        with suppress(HydraException):  # no option, or a wrong one, which Hydra reports
            (option,) = OverridesParser.create().parse_overrides([argument])
            if not option.is_sweep_override():
                continue
            swept.append(option.get_key_element())
            values = list(option.sweep_string_iterator())  # of glob(*) only Hydra knows them
            if twice := [value for value in values if values.count(value) > 1]:
                sys.exit(
                    f"Error: {argument}: {twice[0]} occurs twice; leave one out, since both jobs "
                    "would be the same"
                )
    if others := [key for key in swept if not defines_training(key)]:
        keys = " ".join(others)
        name = f"${{tff.folder:${{hydra.overrides.task}},'{keys}'}}"
        return [*arguments, f'hydra.sweep.subdir="{name}"']
    return arguments


def job_folder(options: Iterable[str], swept: str = "") -> str:
    """Folder name of a job, from those of its options that define it.

    Args:
        options: of the job.
        swept: keys of further options that differ between the jobs, separated by spaces.
    """
    keys = swept.split()
    unified = map(unify_paths, options)
    own = [o for o in unified if defines_training(o) or o.partition("=")[0] in keys]
    return folder_name(",".join(sorted(own)))


def folder_name(overrides: str) -> str:
    """`detector=resnet18,seed=1` -> `detector-resnet18+seed-1`.

    Letters, digits and `._+-` only; at most 120 characters. Where that is not enough, names and
    values of options are cut short, and a digest tells options apart.

    Args:
        overrides: sorted, separated by commas.
    """
    if not overrides:
        return "defaults"
    items = overrides.split(",")
    name = _join(items)
    if all(_PLAIN.fullmatch(item) for item in items) and len(name) <= LONGEST:
        return name
    if len(name) > LONGEST - 13:
        name = _join([_shorten(item) for item in items])[: LONGEST - 13]
    digest = hashlib.sha256(overrides.encode()).hexdigest()[:12]
    return f"{name.strip('-.') or 'options'}-{digest}"


def _join(items: list[str]) -> str:
    text = "+".join(item.replace("=", "-", 1) for item in items)
    return re.sub(r"[^\w.+-]+", "-", text, flags=re.A)


def _shorten(item: str) -> str:
    """`module.optimizer.lr=0.001` -> `lr=0.001`; a long value, such as a path, keeps its end."""
    key, _, value = item.partition("=")
    return f"{key.rpartition('.')[2]}={value[-16:]}"


# Launchers send the configuration of a job unresolved to another process, which imports this module
# with `main` of the script.
OmegaConf.register_new_resolver("tff.folder", job_folder, replace=True)


# The lock: one training in a folder at a time.

LOCK = ".lock"


@contextmanager
def lock_folder(folder: Path | str) -> Iterator[None]:
    """Lock a folder against other trainings; rank zero does so for all processes of its job.

    Raises:
        ValueError: another training holds the lock.
    """
    if not is_rank_zero():
        yield
        return
    with lock(Path(folder) / LOCK) as locked:
        if not locked:
            raise _busy(folder)
        yield


def is_running(folder: Path | str) -> bool:
    """Whether a training is running in a folder."""
    return is_locked(Path(folder) / LOCK)


def _busy(folder: Path | str) -> ValueError:
    return ValueError(
        f"{folder}: another training is running in this folder; wait until it ends, stop it, or "
        "train in another folder (hydra.run.dir=DIR)"
    )


# The outcome: `finished.json` or `failed.json`.

#: Error of a process that has printed its reason and left no other.
_EXITED = re.compile(r"exited with code \S+; see its log$")


def write_result(
    folder: Path | str,
    objective: float | None,
    metrics: Mapping[str, float],
    seconds: float,
    overrides: list[str],
) -> None:
    """Write `finished.json` when a run is complete.

    Args:
        folder: of the run.
        objective: value of the metric that a sweep maximizes.
        metrics: last values.
        seconds: since the last start.
        overrides: options given on the command line.
    """
    content = {"objective": objective, "metrics": dict(metrics), "seconds": round(seconds, 1)}
    write_json(Path(folder) / FINISHED, {**content, "overrides": overrides})


def read_result(folder: Path | str) -> dict[str, Any] | None:
    """`objective`, `metrics`, `seconds` and `overrides` of a finished run; None if unfinished.

    A damaged file counts as missing: the run is completed again and rewrites it.
    """
    try:
        found = read_json(Path(folder) / FINISHED)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) and "objective" in found else None


def write_failure(folder: Path | str, error: BaseException) -> None:
    """Write `failed.json`: why a run ended before it was complete.

    Several processes may do so. An error that only says that another process is gone does not
    replace the reason of that process; the reason is added to the error as a note. Errors of
    writing are ignored, since `error` matters more.
    """
    path, cause = Path(folder) / FAILED, root_cause(error)
    with suppress(OSError):
        if (is_lost_connection(cause) or _EXITED.match(str(cause))) and path.is_file():
            with suppress(ValueError, KeyError, TypeError):
                reason = read_json(path)
                error.add_note(f"{reason['type']}: {reason['error']}")
            return
        write_json(path, {"type": type(cause).__name__, "error": str(cause)})


def clear_outcome(folder: Path | str) -> None:
    """Remove `finished.json` and `failed.json`, when a run starts."""
    for name in (FINISHED, FAILED):
        (Path(folder) / name).unlink(missing_ok=True)


# A run that is stopped by a signal.


def resume_command(folder: Path | str) -> str:
    """Command that resumes this run."""
    given = [a for a in sys.argv[1:] if not a.startswith(("resume=", "hydra.run.dir="))]
    own = [] if is_sweep(given) else [f"hydra.run.dir={folder}"]
    return shlex.join(["python", *sys.argv[:1], *given, "resume=auto", *own])


GRACE = 5.0  # seconds for other processes to store what they have computed


class AnalysisStopped(SystemExit):
    """A signal has stopped an analysis.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


@contextmanager
def stop_on_signals(folder: Path | str) -> Iterator[None]:
    """End an analysis on Ctrl-C or SIGTERM, and say how to go on; a second signal ends it at once.

    Args:
        folder: of the run.

    Raises:
        AnalysisStopped: a signal has arrived.
    """

    def stop(number: int, frame: object) -> None:
        for each in former:
            signal.signal(each, signal.SIG_DFL)
        raise AnalysisStopped(number)

    former: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # Python allows it there only
        former = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except AnalysisStopped:
        # Spawned processes store what they have computed; Python would wait for them without end.
        children = [c for c in multiprocessing.active_children() if not c.daemon and c.pid]
        for child in children:
            os.kill(child.pid or 0, signal.SIGINT)
        until = time.monotonic() + GRACE
        for child in children:
            child.join(max(0.0, until - time.monotonic()))
            child.kill()
        if is_rank_zero():
            text = f"\nStopped; what was computed is stored in {folder}\nGo on with: "
            print(text + resume_command(folder), file=sys.stderr, flush=True)
        raise
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


# Options of a finished run, compared with those of the command line.


class ProtectRun(Callback):
    """Exits before Hydra overwrites the options of a run that is running or had other options.

    Jobs of a sweep are not checked: their folders are named by their options, and `main` locks
    them.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.run.dir)
        with readable_errors():
            if is_rank_zero() and is_running(folder):
                raise _busy(folder)
            if is_rank_zero() and config.resume:
                require_same_options(folder, config.hydra.overrides.task)


def finished_result(cfg: DictConfig) -> dict[str, Any] | None:
    """Result of a finished run, as `read_result` returns it; None where work remains.

    If only the analysis is left, the training is resumed at its end, and makes no step.

    Raises:
        ValueError: the run was finished with other options, or cannot be resumed.
    """
    out, options = Path(cfg.out), list(HydraConfig.get().overrides.task)
    if (result := read_result(out)) is None:
        return None
    require_same_options(out, options)
    best, last = (out / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    if not is_analysis_wanted(cfg.analyze) or not best.is_file():
        return result
    same = _analysis_options(result.get("overrides") or ()) == _analysis_options(options)
    if same and _has_report(out):
        return result
    if not last.is_file():  # best.ckpt would be trained further
        raise ValueError(
            f"{out}: only the analysis is missing, but {last.name} is gone; run "
            + shlex.join(["python", "analyze.py", f"ckpt={best}", f"hydra.run.dir={out}"])
        )
    return None


def is_analysis_wanted(analyze: bool | str) -> bool:
    """Whether an analysis follows the training.

    Args:
        analyze: `auto`: in a sweep, whose report needs it.

    Raises:
        ValueError: another value.
    """
    one_of((True, False, "auto")).require("analyze", analyze)
    return HydraConfig.get().mode == RunMode.MULTIRUN if analyze == "auto" else bool(analyze)


def require_same_options(folder: Path, options: Iterable[str]) -> None:
    """Refuse a folder that was finished with other options.

    Args:
        folder: of a run, finished or not.
        options: of the command line or the job; those that do not define a training may differ.

    Raises:
        ValueError: names the options that differ.
    """
    earlier = (read_result(folder) or {}).get("overrides")
    if not isinstance(earlier, list):
        return
    old, new = _to_values(earlier), _to_values(options)
    differ = [key for key in {**new, **old} if new.get(key) != old.get(key)]
    if differ:
        changes = "; ".join(
            f"{key}: {old.get(key, 'not given')} then, {new.get(key, 'not given')} now"
            for key in differ[:5]
        )
        raise ValueError(
            f"{folder}: was finished with other options ({changes}). Train in another folder "
            "(hydra.run.dir=DIR), or without resume= to start again in this one"
        )


def _to_values(options: Iterable[object]) -> dict[str, str]:
    """Option -> value, for options that define a training; the last value of a repeated one."""
    folder = HydraConfig.get().runtime.cwd if HydraConfig.initialized() else None
    unified = (unify_paths(str(o), folder) for o in options)
    split = (o.partition("=") for o in unified if defines_training(o))
    return {key: value for key, _, value in split}


def _analysis_options(options: Iterable[object]) -> str:
    found = [str(o) for o in options if str(o).startswith("analyze_options=")]
    return found[-1] if found else ""
