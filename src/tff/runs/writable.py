"""Can the folder of a run be written to? Asked before Hydra makes it, and done in an instant."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tff.errors import sentence

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
        reason = sentence(OSError(number, error.strerror, str(there)))
        from tff.safe_text import visible  # only here, since it takes a second

        sys.exit(visible(f"Error: no run can be kept in {folder}. {reason}", lines=True))
