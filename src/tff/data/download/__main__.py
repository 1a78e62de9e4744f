"""The command `python -m tff.data.download SET split=NAME to=DIR`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tff.data.download.fetch import fetch
from tff.data.download.sources import SOURCES, Source, list_sources, load_source
from tff.errors import readable_errors
from tff.options import one_of
from tff.startup import prepare_process

_HELP = """\
python -m tff.data.download SET split=NAME to=DIR [keep_archives=true] [mirror=URL]

Downloads, verifies and unpacks a public set of images. If it is interrupted, run the same command
again: it resumes where it stopped.

  SET                 {sets}
  split=NAME          split of the set, or several with commas; leave it out to see which exist
  to=DIR              folder to download into; then use data.root=DIR
  keep_archives=true  keep the downloaded archives in DIR after unpacking
  mirror=URL          download from a mirror: of the Hugging Face hub (as HF_ENDPOINT=URL does), or
                      a folder with the files on another server, for a set that is not on the hub
"""


def main(arguments: Sequence[str], sources: Path = SOURCES) -> int:
    """Run the command, and return its exit status."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("tff").setLevel(logging.INFO)
    with readable_errors():
        if not arguments or {"-h", "--help"} & set(arguments):
            print(_HELP.format(sets=", ".join(list_sources(sources))))
            return 0 if arguments else 1
        options = _parse_options(arguments[1:])
        source = load_source(arguments[0], sources)
        if not source.splits:
            print(f"{source.name} cannot be downloaded by this command.\n\n{source.by_hand}")
            return 1
        names = _select_splits(source, options["split"])
        if not options["to"]:
            raise ValueError("to=DIR is needed: the folder to download into")
        one_of(("true", "false")).require("keep_archives", options["keep_archives"])
        to, keep = Path(options["to"]).expanduser(), options["keep_archives"] == "true"
        print(f"{source.name}: see {source.page} (licence: {source.licence})", file=sys.stderr)
        try:
            for name in names:
                print(fetch(source, name, to, keep, options["mirror"]))
        except OSError as error:
            raise ValueError(
                f"{error.filename or to}: cannot be written ({error.strerror or error}); choose "
                "another folder with to=DIR"
            ) from error
        except KeyboardInterrupt:
            print("\nInterrupted; run the same command again to resume.", file=sys.stderr)
            return 130
    return 0


def _parse_options(arguments: Sequence[str]) -> dict[str, str]:
    options = {"split": "", "to": "", "keep_archives": "false", "mirror": ""}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in options or not equals:
            raise ValueError(f"{argument}: unknown option; known are {'=, '.join(options)}=")
        options[key] = value
    return options


def _select_splits(source: Source, names: str) -> list[str]:
    if not names:
        raise ValueError(f"split=NAME is needed: {source.name} has {', '.join(source.splits)}")
    chosen = list(dict.fromkeys(names.split(",")))
    if unknown := [name for name in chosen if name not in source.splits]:
        raise ValueError(
            f"split={','.join(unknown)}: {source.name} has only {', '.join(source.splits)}"
        )
    return chosen


if __name__ == "__main__":
    prepare_process()
    sys.exit(main(sys.argv[1:]))
