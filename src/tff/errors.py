"""One readable message instead of a stack trace."""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from rich.console import Console
from rich.text import Text

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
    ValueError, OSError, NotImplementedError, InstantiationException, MissingMandatoryValue
)  # fmt: skip


class JobError(CompactHydraException):
    """A job of a sweep has failed and its error was printed; the other jobs go on."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Exit with a message for errors that the user can fix; HYDRA_FULL_ERROR=1 shows the stack.

    Logs and warnings of this process are made printable as well.
    """
    make_logs_printable()
    try:
        yield
    except Exception as error:
        text = _message(error)
        if text is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        text = make_printable(text, lines=True)
        console = Console(stderr=True)
        console.print(Text(f"Error: {text}", style="bold red"), soft_wrap=True)
        console.print("(HYDRA_FULL_ERROR=1 shows where it came from.)", style="dim")
        raise exit_error(text) from None


def exit_error(reason: str) -> JobError | SystemExit:
    """Exception to raise after the reason was printed; in a sweep, the other jobs go on."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        # SystemExit would end the sweep at once. Hydra raises this one after the last job.
        return JobError(reason)
    return SystemExit(1)


def _message(error: Exception) -> str | None:
    """Message for the user; None for an error that the user cannot fix."""
    cause = root_cause(error)
    if is_lost_connection(cause):
        # Added by `tff.cli.run_folder.write_failure`.
        if reason := "; ".join(getattr(error, "__notes__", ())):
            return f"another process failed: {reason}"
        return "another process failed, was killed or is out of reach; see what it printed"
    # In a test, and before the first job of a sweep, there is no folder yet.
    hydra = HydraConfig.instance().cfg
    folder = OmegaConf.select(hydra, "hydra.runtime.output_dir") if hydra else None  # type: ignore[arg-type]
    if fault := explain(cause, folder):
        return fault
    if isinstance(cause, MissingMandatoryValue) and cause.full_key:
        return f"{cause.full_key} is needed: pass {cause.full_key}=..."
    mendable = isinstance(error, USER_ERRORS) or isinstance(cause, USER_ERRORS)
    # Of options of the Trainer; by its name, since importing Lightning takes seconds.
    mendable = mendable or type(cause).__name__ == "MisconfigurationException"
    return str(cause).strip() if mendable else None
