"""One readable line instead of a stack trace."""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from rich.console import Console
from rich.text import Text

_ROOM = "make room there, or write to another disk (hydra.run.dir=DIR), and start with resume=auto"
#: What is wrong and what to do, by the number of the error.
ADVICE = {
    errno.ENOSPC: f"the disk is full; {_ROOM}",
    errno.EDQUOT: f"your share of the disk is used up; {_ROOM}",
    errno.EFBIG: f"larger files are not allowed here (`ulimit -f` shows the limit); {_ROOM}",
    errno.EROFS: "the disk is read-only; write to another one (hydra.run.dir=DIR)",
    errno.EACCES: "not permitted; ask for the right to it, or name another place",
    errno.EPERM: "not permitted; ask for the right to it, or name another place",
    errno.ENOTDIR: "a file stands where a folder is needed; name another place",
    errno.EEXIST: "a file stands where a folder is needed; name another place",
    errno.EISDIR: "a folder stands where a file is needed; name another place",
    errno.ENOENT: "no such file or folder",
}
#: Errors of writing, which often do not tell of which file.
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_KILLED = re.compile(r"DataLoader worker \(pid.*?(?:signal: (?P<signal>[\w ]+)|unexpectedly)", re.S)


def explain(error: BaseException, folder: Path | str | None = None) -> str | None:
    """What happened and what to do about it; None where the machine is not to blame.

    Args:
        error: of any kind.
        folder: to which files are written, for an error that does not say to which one.
    """
    if isinstance(error, RuntimeError) and (worker := _KILLED.search(str(error))):
        by = f" ({worker['signal'].strip()})" if worker["signal"] else ""
        return (
            f"a process that loads images was killed{by}, perhaps for want of memory; use fewer "
            "(data.workers=N in a training, subject.workers=N in an analysis; 0: none), or smaller "
            "batches (data.batch_size=N, subject.batch_size=N), and start with resume=auto"
        )
    if not isinstance(error, OSError):
        return None
    path = error.filename
    if path is None and error.errno in _WRITING:
        path = folder
    if error.errno not in ADVICE or path is None:
        return str(error)
    return f"{os.fsdecode(path) if isinstance(path, bytes) else path}: {ADVICE[error.errno]}"


#: What gloo, NCCL and torch's store say when a process at the other end is gone.
_GONE = re.compile(
    r"connection (?:was likely )?(?:closed|reset)|broken pipe|remote process exit"
    r"|NCCL communicator was aborted",
    re.IGNORECASE,
)


def root_cause(error: BaseException) -> BaseException:
    """What went wrong: the error of a call within Hydra's, that of a process within torch's."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return root_cause(error.__cause__)
    # By its name: to import torch takes seconds.
    if type(error).__name__ == "ProcessRaisedException":
        return _of_process(str(error)) or error
    return error


def is_lost_connection(error: BaseException) -> bool:
    """Whether all it tells is that another process is gone, which knew the reason, if anyone."""
    return isinstance(error, RuntimeError) and bool(_GONE.search(str(error)))


def _of_process(text: str) -> Exception | None:
    """From what would be printed: frames, which are indented, then the kind and what it says."""
    lines = text.rstrip().splitlines()
    last = max((i for i, line in enumerate(lines) if line.startswith('  File "')), default=-1)
    told = next((i for i in range(last + 1, len(lines)) if not lines[i].startswith(" ")), None)
    if last < 0 or told is None:
        return None
    name, _, words = "\n".join(lines[told:]).partition(": ")
    module, _, kind = name.rpartition(".")
    known = getattr(sys.modules.get(module or "builtins"), kind, None)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(words)
        except TypeError:  # it is not made of words alone
            pass
    return RuntimeError(f"{name}: {words}" if words else name)


# Our launchers have the names of the plugins' own. Hydra 1.3 then checks the types of their options
# by those, which is meant, and warns that later versions will not.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")

PATHS = (
    "ckpt",
    "out",
    "passes",
    "hydra.run.dir",
    "data.root",
    "data.photos",
    "data.cache",
    "discovery.root",
    "run",
    "runs",
    "detector.pretrained",
)


#: A group is chosen with a slash, its values with a dot; both are typed for the choice.
GROUPS = {"report.protocol": "report/protocol"}


def quote_paths(arguments: Iterable[str], keys: tuple[str, ...] = PATHS) -> list[str]:
    """Quote the values of path options, so that Hydra takes `=`, `(`, `,`, spaces... literally.

    `ckpt=runs/epoch=3 (best).ckpt` then means that file, and `~` the home folder. Values that are
    quoted or escaped already, lists (`[a,b]`), refer to others with `${...}`, or (with `-m`) list
    several with commas, stay as they are.
    """
    arguments = list(arguments)
    sweep = bool({"-m", "--multirun"} & set(arguments))
    return [_quoted(argument, keys, sweep) for argument in arguments]


def _quoted(argument: str, keys: tuple[str, ...], sweep: bool) -> str:
    key, equals, value = argument.partition("=")
    if key in GROUPS:
        return f"{GROUPS[key]}={value}"
    plain = key.lstrip("+") in keys and equals and value not in ("", "null", "true", "false")
    special = value[:1] in ("'", '"') or "${" in value or "\\=" in value or (sweep and "," in value)
    if not plain or special or (value[0] == "[" and value[-1] == "]"):
        return argument
    escaped = os.path.expanduser(value).replace('"', '\\"')
    return f'{key}="{escaped}"'


USER_ERRORS = (
    ValueError,
    OSError,
    NotImplementedError,
    InstantiationException,
    MissingMandatoryValue,
)


class JobError(CompactHydraException):
    """A job of a sweep has failed, which was told; the others go on."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """End with one plain sentence where the user can mend it; HYDRA_FULL_ERROR=1 shows all."""
    try:
        yield
    except Exception as error:
        text = _told(error)
        if text is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        from tff.safe_text import make_printable  # only here, since it takes a second

        text = make_printable(text, lines=True)  # names of files may hold what a terminal obeys
        console = Console(stderr=True)
        console.print(Text(f"Error: {text}", style="bold red"), soft_wrap=True)
        console.print("(HYDRA_FULL_ERROR=1 shows where it came from.)", style="dim")
        raise exit_error(text) from None


def exit_error(reason: str) -> JobError | SystemExit:
    """What to raise when the user has been told why nothing more is done."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        # SystemExit would end the jobs that are still to run. Hydra ends with this at last.
        return JobError(reason)
    return SystemExit(1)


def _told(error: Exception) -> str | None:
    """One sentence; None for an error that is not the user's to mend."""
    cause = root_cause(error)
    if is_lost_connection(cause):
        # `tff.cli.run_folder.write_failure` notes what the other process has left word of.
        if reason := "; ".join(getattr(error, "__notes__", ())):
            return f"another process failed: {reason}"
        return "another process failed, was killed or is out of reach; what it printed tells why"
    # In a test, and before the first job of a sweep, there is no folder yet.
    hydra = HydraConfig.instance().cfg
    folder = OmegaConf.select(hydra, "hydra.runtime.output_dir") if hydra else None  # type: ignore[arg-type]
    if fault := explain(cause, folder):
        return fault
    if isinstance(cause, MissingMandatoryValue) and cause.full_key:
        return f"{cause.full_key} is needed: pass {cause.full_key}=..."
    mendable = isinstance(error, USER_ERRORS) or isinstance(cause, USER_ERRORS)
    return str(cause).strip() if mendable else None
