"""The error itself, without what Hydra and torch wrap around that of a call or another process."""

from __future__ import annotations

import re
import sys

from hydra.errors import InstantiationException

#: What gloo, NCCL and torch's store say when a process at the other end is gone.
_GONE = re.compile(
    r"connection (?:was likely )?(?:closed|reset)|broken pipe|remote process exit"
    r"|NCCL communicator was aborted",
    re.IGNORECASE,
)


def itself(error: BaseException) -> BaseException:
    """What went wrong: the error of a call within Hydra's, that of a process within torch's."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return itself(error.__cause__)
    # By its name: to import torch takes seconds.
    if type(error).__name__ == "ProcessRaisedException":
        return _of_process(str(error)) or error
    return error


def only_gone(error: BaseException) -> bool:
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
