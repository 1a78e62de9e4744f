"""What the machine refuses: a full disk, a read-only folder, a process that is killed; in words."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

_ROOM = "make room there, or write to another disk (hydra.run.dir=DIR), and start with resume=auto"
#: What is wrong and what to do, by the number of the error.
WORDS = {
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


def sentence(error: BaseException, folder: Path | str | None = None) -> str | None:
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
    if error.errno not in WORDS or path is None:
        return str(error)
    return f"{os.fsdecode(path) if isinstance(path, bytes) else path}: {WORDS[error.errno]}"
