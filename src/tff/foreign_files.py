"""Files that somebody else may have made: opened only if they are regular, and read within bounds.

A pipe in place of a file would block for ever, a device may have no end, a small file may name
itself so often that it fills the memory. Each such file ends in an error that names it. (Images and
checkpoints have readers of their own.)
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import yaml  # type: ignore[import-untyped]
from omegaconf._utils import get_yaml_loader

JSON_LIMIT = 1 << 27  # bytes
YAML_LIMIT = 1 << 20  # bytes; all options of a run are some ten thousand
_DEPTH = 64  # of nested lists and mappings in YAML; options are nested less than ten deep
_INTEGERS = 1 << 63  # larger ones fit into no column of a table
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def open_regular(path: Path | str, mode: str = "rb") -> BinaryIO:
    """Open a file, without waiting for anybody.

    Args:
        path: of the file.
        mode: of `open`, binary.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: it is a folder, a pipe, a socket or a device; the message names it.
    """
    return cast(BinaryIO, open(path, mode, opener=_open))


def _open(path: str, flags: int) -> int:
    with suppress(FileNotFoundError):  # which the mode may create
        _require_regular(os.stat(path), path)  # first, since opening a device may have an effect
    number = os.open(path, flags | os.O_NONBLOCK, 0o666)
    try:
        _require_regular(os.fstat(number), path)  # it may have been replaced
    except ValueError:
        os.close(number)
        raise
    return number


def _require_regular(state: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(state.st_mode):
        kind = next((kind for test, kind in _KINDS if test(state.st_mode)), "something else")
        raise ValueError(f"{path}: is {kind}, not a file; remove it or name another path")


def read_file(path: Path | str, limit: int) -> bytes:
    """Content of a regular file.

    Raises:
        OSError, ValueError: as `open_regular`; or the file has more than `limit` bytes.
    """
    with open_regular(path) as file:
        known = os.fstat(file.fileno()).st_size  # 0 for files of the system
        content = b"" if known > limit else file.read(limit + 1)
    if max(known, len(content)) > limit:
        raise ValueError(
            f"{path}: has more than {limit:,} bytes, so it is not what its name says; remove it"
        )
    return content


def read_json(path: Path | str, limit: int = JSON_LIMIT) -> Any:
    """Content of a JSON file of at most `limit` bytes.

    Raises:
        OSError, ValueError: as `read_file`; or it is not JSON, nested too deeply, or holds an
            integer of more than 64 bits.
    """
    content = read_file(path, limit)
    try:
        return parse_json(content)
    except ValueError as error:
        raise _refuse(path, "JSON", error) from None


def parse_json(content: bytes) -> Any:
    """Values in JSON; a ValueError as `read_json`, without the name of a file."""
    try:
        return json.loads(content.decode(), parse_int=_parse_integer)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _parse_integer(text: str) -> int:
    if len(text) > 20 or not -_INTEGERS <= (number := int(text)) < _INTEGERS:
        raise ValueError(f"the integer {text[:20]}... is too large")
    return number


def read_yaml(path: Path | str) -> Any:
    """Content of a YAML file of options as plain containers; references (`${...}`) stay text.

    Raises:
        OSError, ValueError: as `read_file`; or it is cut off, is not YAML, names an object of
            Python, is nested too deeply, or refers to parts of itself (`&`, `*`), which would let a
            small file grow without limit.
    """
    content = read_file(path, YAML_LIMIT)
    try:
        if not content.endswith(b"\n"):
            raise ValueError("its last line has no end, so it is cut off")
        depth = 0
        for event in yaml.parse(BytesIO(content), Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it refers to parts of itself")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:  # the reader in C would crash
                raise ValueError(f"it is nested more than {_DEPTH} deep")
        loader = _Loader(BytesIO(content))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except Exception as error:  # a forged value lets the reader raise nearly anything
        raise _refuse(path, "settings", error) from None


def _refuse(path: Path | str, content: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{path}: cannot be read as {content} ({reason})")


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]
    """Types of values as in OmegaConf, in a tenth of its time."""

    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers
