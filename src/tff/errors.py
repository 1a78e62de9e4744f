"""One readable message instead of a stack trace."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra._internal import utils as hydra_utils
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    CompactHydraException,
    HydraException,
    InstantiationException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from rich.console import Console
from rich.text import Text

from tff.options import suggest
from tff.safe_text import make_logs_printable, make_printable

_ROOM = "make room there, or write to another disk (hydra.run.dir=DIR), and start with resume=auto"
#: What is wrong and what to do, by error number.
ADVICE = {
    errno.ENOSPC: f"the disk is full; {_ROOM}",
    errno.EDQUOT: f"your share of the disk is used up; {_ROOM}",
    errno.EFBIG: f"larger files are not allowed here (`ulimit -f` shows the limit); {_ROOM}",
    errno.EROFS: "the disk is read-only; write to another one (hydra.run.dir=DIR)",
    errno.EACCES: "permission denied; ask for access, or name another path",
    errno.EPERM: "permission denied; ask for access, or name another path",
    errno.ENOTDIR: "is a file where a folder is needed; name another path",
    errno.EEXIST: "is a file where a folder is needed; name another path",
    errno.EISDIR: "is a folder where a file is needed; name another path",
    errno.ENOENT: "no such file or folder",
}
#: Errors of writing, which often do not name the file.
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
#: Errors for which the file does not matter.
_USED_UP = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}
_KILLED = re.compile(r"DataLoader worker \(pid.*?(?:signal: (?P<signal>[\w ]+)|unexpectedly)", re.S)
#: What a process has used up, by the words of Python, torch and the system; the first one counts.
_LIMITS = {
    r"Too many open files": "too many files are open; allow more (`ulimit -n 4096`)",
    r"(?:shared memory|/dev/shm).*(?:No space|allocate memory)|signal: Bus error": (
        "there is no room in /dev/shm; give it more (docker run --shm-size=8g)"
    ),
    r"shared memory|/dev/shm|sem_open": (
        "/dev/shm is missing or cannot be written to; mount it (mount -t tmpfs tmpfs /dev/shm)"
    ),
    r"CUDA out of memory|CU(?:BLAS|DNN)_STATUS_\w*ALLOC": (
        "the GPU has not enough memory; use smaller batches (data.batch_size=N in a training, "
        "subject.batch_size=N in an analysis)"
    ),
    r"AF_UNIX path too long": (
        "the path of the folder for temporary files is too long; set TMPDIR to a shorter one"
    ),
    r"start new thread|Resource temporarily unavailable": (
        "no more processes or threads may be started; allow more (`ulimit -u` shows the limit)"
    ),
    r"allocate memory|not enough memory|\bMemoryError\b|bad_alloc|failed to map segment": (
        "there is not enough memory; see `ulimit -v` and the limit of the job or container"
    ),
    r"usable temporary directory|No space left|[Rr]ead-only file system|/pymp-": (
        "temporary files cannot be written; set TMPDIR to a folder with room"
    ),
}


def explain_limit(text: str) -> str | None:
    """Explain an error from something that the machine has run out of; None for other errors.

    Args:
        text: class and message of the error.
    """
    return next((s for words, s in _LIMITS.items() if re.search(words, text, re.S)), None)


def is_killed_worker(error: BaseException) -> bool:
    """Whether PyTorch says that a process that loads images is gone."""
    return isinstance(error, RuntimeError) and bool(_KILLED.search(str(error)))


def explain(error: BaseException, folder: Path | str | None = None) -> str | None:
    """Explain an error of the machine, and what to do about it; None for other errors.

    Args:
        error: any exception.
        folder: of the run, for a write error that does not name a file.
    """
    if isinstance(error, RuntimeError) and (worker := _KILLED.search(str(error))):
        by = f" ({worker['signal'].strip()})" if worker["signal"] else ""
        limit = explain_limit(str(error))
        why = f": {limit}; or use" if limit else ", perhaps for lack of memory; use"
        return (
            f"a process that loads images was killed{by}{why} fewer "
            "(data.workers=N in a training, subject.workers=N in an analysis; 0: none), or smaller "
            "batches (data.batch_size=N, subject.batch_size=N), and start with resume=auto"
        )
    if not isinstance(error, OSError):
        used_up = isinstance(error, MemoryError | RuntimeError | ImportError)
        return explain_limit(f"{type(error).__name__}: {error}") if used_up else None
    if error.errno in _USED_UP:
        return explain_limit(str(error)) or str(error)
    path = error.filename
    if path is None and error.errno in _WRITING:
        path = folder
    if error.errno not in ADVICE or path is None:
        return str(error)
    return f"{os.fsdecode(path) if isinstance(path, bytes) else path}: {ADVICE[error.errno]}"


#: Messages of gloo, NCCL and torch's store when the process at the other end is gone.
_GONE = re.compile(
    r"connection (?:was likely )?(?:closed|reset)|broken pipe|remote process exit"
    r"|NCCL communicator was aborted",
    re.IGNORECASE,
)


def root_cause(error: BaseException) -> BaseException:
    """The error behind those of Hydra (of a call) and of torch (of a spawned process)."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return root_cause(error.__cause__)
    # By its name, since importing torch takes seconds.
    if type(error).__name__ == "ProcessRaisedException":
        return _of_process(str(error)) or error
    return error


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error only says that another process is gone, which may have reported why."""
    return isinstance(error, RuntimeError) and bool(_GONE.search(str(error)))


def _of_process(text: str) -> Exception | None:
    """Error in a printed stack trace: indented frames, then class and message."""
    lines = text.rstrip().splitlines()
    last = max((i for i, line in enumerate(lines) if line.startswith('  File "')), default=-1)
    start = next((i for i in range(last + 1, len(lines)) if not lines[i].startswith(" ")), None)
    if last < 0 or start is None:
        return None
    name, _, words = "\n".join(lines[start:]).partition(": ")
    module, _, kind = name.rpartition(".")
    known = getattr(sys.modules.get(module or "builtins"), kind, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(words)
        except TypeError:  # it takes other arguments
            pass
    return RuntimeError(f"{name}: {words}" if words else name)


# Our launchers bear the names of those of the plugins. Hydra 1.3 then checks their options against
# the plugins, as intended, and warns that later versions will not.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")

USER_ERRORS = (
    ValueError, OSError, NotImplementedError, InstantiationException, MissingMandatoryValue,
    HydraException, OmegaConfBaseException,
)  # fmt: skip
#: File in the folder of a run with the trace of an error that no message explains.
TRACE = "error.log"


#: Messages that this process has printed.
_printed: set[str] = set()


class JobError(CompactHydraException):
    """A job of a sweep has failed and its error was printed; the other jobs go on."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Exit with a message for any error; HYDRA_FULL_ERROR=1 shows the stack.

    The stack of an error that no message explains goes to `error.log` in the folder of the run.
    Logs and warnings of this process are made printable as well.
    """
    make_logs_printable()
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        text = _message(error)
        text = make_printable(text, lines=True)
        console = Console(stderr=True)
        console.print(Text(f"Error: {text}", style="bold red"), soft_wrap=True)
        console.print("(HYDRA_FULL_ERROR=1 shows where it came from.)", style="dim")
        _printed.add(text)
        raise exit_error(text) from None


@contextmanager
def script_errors() -> Iterator[None]:
    """As `readable_errors`, around a script: for errors of Hydra too, before and after its jobs."""
    try:
        with readable_errors():
            yield
    except JobError as error:
        if str(error) not in _printed:  # but by the process of the job, to its own log
            print(f"Error: {make_printable(str(error), lines=True)}", file=sys.stderr)
        raise SystemExit(1) from None


# Hydra prints errors with a trace. It passes them on instead, to `script_errors`.
hydra_utils.run_and_report = lambda func: func()


def exit_error(reason: str) -> JobError | SystemExit:
    """Exception to raise after the reason was printed; in a sweep, the other jobs go on."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        # SystemExit would end the sweep at once. Hydra raises this one after the last job.
        return JobError(reason)
    return SystemExit(1)


def _message(error: Exception) -> str:
    """Message for the user."""
    cause = root_cause(error)
    if is_lost_connection(cause):
        # Added by `tff.cli.run_folder.write_failure`.
        if reason := "; ".join(getattr(error, "__notes__", ())):
            return f"another process failed: {reason}"
        return "another process failed, was killed or is out of reach; see what it printed"
    # In a test, and before the first job of a sweep, there is no folder yet.
    hydra = HydraConfig.instance().cfg
    folder = OmegaConf.select(hydra, "hydra.runtime.output_dir") if hydra else None  # type: ignore[arg-type]
    if isinstance(cause, MissingMandatoryValue) and cause.full_key:
        return f"{cause.full_key} is needed: pass {cause.full_key}=..."
    if isinstance(cause, HydraException | OmegaConfBaseException):
        return _explain_options(cause)
    if fault := explain(cause, folder):
        return fault
    # Of options of the Trainer; by its name, since importing Lightning takes seconds.
    mendable = isinstance(cause, USER_ERRORS) or type(cause).__name__ == "MisconfigurationException"
    if mendable and _package(cause) in ("tff", "hydra", "omegaconf", ""):
        return str(cause).strip()
    reason = " ".join(str(cause).split()) or "without a message"
    if isinstance(error, InstantiationException) and (key := _KEY.search(str(error))):
        return f"{key[1]}: {reason if mendable else f'{type(cause).__name__}: {reason}'}"
    return f"{_describe_place(error)}{type(cause).__name__}: {reason}. {_keep_trace(error, folder)}"


_CHOICE = re.compile(
    r"(?:In '[^']*': )?Could not (?:find|load) '(?P<group>.*)/(?P<name>[^/]*)'\s+"
    r"Available options in '.*':\n(?P<known>(?:\t.*\n?)+)"
)
_KEY = re.compile(r"full_key: (\S+)")


def _explain_options(error: HydraException | OmegaConfBaseException) -> str:
    """One sentence for an error of Hydra or OmegaConf about the options."""
    cause = error.__cause__
    if missing := _CHOICE.match(str(error)):
        known = missing["known"].split()
        option = f"{missing['group']}={missing['name']}"
        near = suggest(missing["name"], known)
        return f"{option}: there is no such choice, expected one of {', '.join(known)}{near}"
    if isinstance(cause, OmegaConfBaseException) and "is not in struct" in str(cause):
        key = str(cause.full_key)
        near = suggest(key.rpartition(".")[2], list(cause.parent_node or ()))
        return f"{key}: there is no such option (+{key}=... adds one){near}"
    lines = [line.strip(" ^") for line in str(error).splitlines()]
    if isinstance(error, OverrideParseException) and str(error.override) not in lines[0]:
        lines.insert(0, f"{error.override}:")
    if isinstance(cause, OmegaConfBaseException):
        lines += [str(cause).splitlines()[0]]
    skip = ("object_type", "reference_type", "See https")
    return " ".join(line for line in lines if line and not line.startswith(skip))


def _package(error: BaseException) -> str:
    """Package whose code raised an error; empty where that is not known."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")).partition(".")[0] if frames else ""


def _describe_place(error: BaseException) -> str:
    """`in NAME of MODULE: `, for the last function of ours that an error passed."""
    passed = [
        f"in {frame.f_code.co_name} of {name}: "
        for frame, _ in traceback.walk_tb(root_cause(error).__traceback__)
        if (name := str(frame.f_globals.get("__name__"))).startswith("tff.") and name != __name__
    ]
    return passed[-1] if passed else ""


def _keep_trace(error: BaseException, folder: object) -> str:
    """Append the stack of an error to `error.log`, and say where it is."""
    report = "if the files and options are as they should be, please report it with this trace"
    with suppress(OSError):
        path = Path(str(folder)) / TRACE
        if folder is not None and path.parent.is_dir():
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(traceback.format_exception(error)))
            return f"The trace is in {path}; {report}"
    return f"HYDRA_FULL_ERROR=1 shows the trace; {report}"
