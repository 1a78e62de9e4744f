"""The command line as people use it: paths as they write them, errors as they can read them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hydra.errors import InstantiationException
from omegaconf.errors import MissingMandatoryValue
from rich.console import Console
from rich.text import Text

PATHS = (
    "ckpt",
    "out",
    "passes",
    "hydra.run.dir",
    "data.root",
    "data.photos",
    "data.cache",
    "discovery.root",
    "detector.pretrained",
)


#: A group is chosen with a slash, its values with a dot; both are typed for the choice.
GROUPS = {"report.protocol": "report/protocol"}


def quoted(arguments: Iterable[str], keys: tuple[str, ...] = PATHS) -> list[str]:
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


_MENDABLE = (
    ValueError,
    FileNotFoundError,
    NotImplementedError,
    InstantiationException,
    MissingMandatoryValue,
)


@contextmanager
def readable_errors() -> Iterator[None]:
    """End with one plain sentence where the user can mend it; HYDRA_FULL_ERROR=1 shows all."""
    try:
        yield
    except _MENDABLE as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        text = str(cause or error).strip()
        if isinstance(cause, MissingMandatoryValue):
            text = f"{cause.full_key} is needed: pass {cause.full_key}=..."
        console = Console(stderr=True)
        console.print(Text(f"Error: {text}", style="bold red"), soft_wrap=True)
        console.print("(HYDRA_FULL_ERROR=1 shows where it came from.)", style="dim")
        raise SystemExit(1) from None
