"""The command `python -m tff.data.download SET split=NAME to=DIR`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tff.data.download.fetch import fetch
from tff.data.download.sources import SOURCES, Source, names, source
from tff.errors import readable_errors

_HELP = """\
python -m tff.data.download SET split=NAME to=DIR [keep_archives=true] [mirror=URL]

Downloads a public set of images, verifies and unpacks it. If it is interrupted, run the same
command again: it goes on where it was.

  SET                 {sets}
  split=NAME          a part of the set, or several with commas; left out: which there are
  to=DIR              folder that the set is brought into; later data.root=DIR
  keep_archives=true  leave the downloaded archives in DIR once they are unpacked
  mirror=URL          take the files from this folder on another server
"""


def main(arguments: Sequence[str], sources: Path = SOURCES) -> int:
    """Run the command; its exit status is returned."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with readable_errors():
        if not arguments or {"-h", "--help"} & set(arguments):
            print(_HELP.format(sets=", ".join(names(sources))))
            return 0 if arguments else 1
        options = _options(arguments[1:])
        told = source(arguments[0], sources)
        if not told.splits:
            print(f"{told.name} cannot be downloaded by this command.\n\n{told.by_hand}")
            return 1
        chosen = _chosen(told, options["split"])
        if not options["to"]:
            raise ValueError("to=DIR is needed: the folder that the set is brought into")
        if options["keep_archives"] not in ("true", "false"):
            raise ValueError(f"keep_archives={options['keep_archives']}: true or false")
        to, keep = Path(options["to"]).expanduser(), options["keep_archives"] == "true"
        print(f"{told.name}: see {told.page} (licence: {told.licence})", file=sys.stderr)
        try:
            for name in chosen:
                print(fetch(told, name, to, keep, options["mirror"]))
        except OSError as error:
            raise ValueError(f"{error.filename or to}: {error.strerror or error}") from error
        except KeyboardInterrupt:
            print("\nInterrupted; run the same command again to go on.", file=sys.stderr)
            return 130
    return 0


def _options(arguments: Sequence[str]) -> dict[str, str]:
    options = {"split": "", "to": "", "keep_archives": "false", "mirror": ""}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in options or not equals:
            raise ValueError(f"{argument}: unknown; there are {'=, '.join(options)}=")
        options[key] = value
    return options


def _chosen(told: Source, names: str) -> list[str]:
    there = ", ".join(told.splits)
    if not names:
        raise ValueError(f"split=NAME is needed: {told.name} has {there}")
    chosen = list(dict.fromkeys(names.split(",")))
    if unknown := [name for name in chosen if name not in told.splits]:
        raise ValueError(f"split={','.join(unknown)}: {told.name} has {there}")
    return chosen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
