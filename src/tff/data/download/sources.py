"""Where the files of a set are, as `sets/SET.yaml` beside this file says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from omegaconf import OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

SOURCES = Path(__file__).parent / "sets"
_KINDS: tuple[list[str], ...] = (["zip"], ["7z"], ["7z", "zip"], ["zip", "zip"], [])


@dataclass(frozen=True)
class File:
    """One file to be downloaded.

    Args:
        url: of the file; the last part of its path is the file's name.
        gigabytes: its size, roughly; for the disk space that is asked for in advance.
        bytes: its exact size where it is published.
        sha256: its checksum in hex where it is published.
    """

    url: str
    gigabytes: float
    bytes: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ValueError(f"url {self.url!r} has to begin with https://")
        if not re.fullmatch(r"[\w][\w.+-]*", self.name):
            raise ValueError(f"url {self.url!r} has to end with the name of a file")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 {self.sha256!r} has to be 64 hex digits in lower case")

    @property
    def name(self) -> str:
        """What the file is called."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    @property
    def about(self) -> int:
        """Its size in bytes, roughly if need be."""
        return self.bytes or int(self.gigabytes * 1e9)


@dataclass(frozen=True)
class Split:
    """One part of a set that can be had by itself.

    Args:
        into: name of the folder that it becomes.
        files: what to download; several are the volumes of one archive, in order.
        unpack: kind of the archive; a second one for an archive that is the only file in the first.
            None: the files themselves are the set.
        holds: a folder that stands at the top of what is unpacked; folders around it are left out.
    """

    into: str
    files: tuple[File, ...]
    unpack: list[str] = field(default_factory=list)
    holds: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w-]*", self.into):
            raise ValueError(f"into: {self.into!r} has to be the name of a folder")
        if self.unpack not in _KINDS:
            raise ValueError(f"unpack: {self.unpack}; known are {', '.join(map(str, _KINDS))}")
        if not self.files:
            raise ValueError("files: there are none")
        if self.unpack[:1] == ["zip"] and len(self.files) > 1:
            raise ValueError("files: a zip archive is one file")


@dataclass(frozen=True)
class Source:
    """Where a set is to be had.

    Args:
        name: of the set.
        page: that tells about it.
        licence: what it says there.
        splits: those that can be downloaded.
        by_hand: how to get what cannot.
    """

    name: str
    page: str = ""
    licence: str = ""
    splits: Mapping[str, Split] = field(default_factory=dict)
    by_hand: str = ""


def names(folder: Path = SOURCES) -> list[str]:
    """The sets that are known."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def source(name: str, folder: Path = SOURCES) -> Source:
    """Where a set is to be had.

    Raises:
        ValueError: it is unknown, or its file is not as it should be.
    """
    if name not in names(folder):
        raise ValueError(f"no set {name!r}; there are {', '.join(names(folder))}")
    path = folder / f"{name}.yaml"
    try:
        # `${oc.env:...}` stays text: a password would go into an address otherwise.
        told: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        splits = {key: _split(own) for key, own in told.pop("splits", {}).items()}
        return Source(name, splits=splits, **told)
    except (ValueError, TypeError, AttributeError, KeyError, YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _split(own: dict[str, Any]) -> Split:
    return Split(files=tuple(File(**file) for file in own.pop("files")), **own)
