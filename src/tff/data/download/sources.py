"""Declarations of public sets: where `sets/SET.yaml` says that their files are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from omegaconf import OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from tff.options import Allowed, checked, each, number, whole

SOURCES = Path(__file__).parent / "sets"
_ARCHIVES: tuple[list[str], ...] = (["zip"], ["7z"], ["7z", "zip"], ["zip", "zip"], [])
_KINDS_OF_ARCHIVES = Allowed(lambda kinds: kinds in _ARCHIVES, f"one of {str(_ARCHIVES)[1:-1]}")


def _matching(pattern: str, expected: str) -> Allowed:
    return Allowed(lambda value: re.fullmatch(pattern, value) is not None, expected)


def _is_file_url(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https") and bool(
        re.fullmatch(r"\w[\w.+-]*", _name_in(url))
    )


def _name_in(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


@dataclass(frozen=True)
@checked("files")
class File:
    """A file at a plain address.

    Args:
        url: address, which ends with the name of the file.
        gigabytes: approximate size.
        bytes: exact size, if published.
        sha256: checksum in lower-case hex, if published.
    """

    url: Annotated[str, Allowed(_is_file_url, "https://HOST/.../NAME, NAME being that of a file")]
    gigabytes: Annotated[float, number(above=0)]
    bytes: Annotated[int, whole(1)] | None = None
    sha256: Annotated[str, _matching("[0-9a-f]{64}", "64 hex digits in lower case")] | None = None

    @property
    def name(self) -> str:
        """Name of the file."""
        return _name_in(self.url)


@dataclass(frozen=True)
@checked("hub")
class HubFiles:
    """Files in a data set repository on the Hugging Face hub.

    Args:
        repo: `OWNER/NAME` of the repository.
        files: names or patterns (`data/*.parquet`) of files in it.
        revision: commit. A branch, such as `main`, is resolved by the first download; later ones
            take the commit that is recorded then.
    """

    repo: Annotated[str, _matching(r"\w[\w.-]*/\w[\w.-]*", "OWNER/NAME")]
    files: Annotated[
        Sequence[str], each(_matching(r"[^/].*", "a name or pattern"), at_least_one=True)
    ]
    revision: Annotated[str, _matching(r"\w[\w./-]*", "a commit or branch")] = "main"


@dataclass(frozen=True)
@checked("split")
class Split:
    """One part of a set that can be downloaded by itself.

    Args:
        into: name of the folder to create.
        files: files at plain addresses; several are the volumes of one 7z archive, in order.
        hub: files on the Hugging Face hub, in place of `files`.
        unpack: kind of the archive, then that of the only archive in it, if any; empty: the files
            themselves are the set.
        holds: name of a folder to become a direct child of `into`; parents are dropped.
    """

    into: Annotated[str, _matching(r"\w[\w-]*", "the name of a folder")]
    files: tuple[File, ...] = ()
    hub: HubFiles | None = None
    unpack: Annotated[list[str], _KINDS_OF_ARCHIVES] = field(default_factory=list)
    holds: str | None = None

    def __post_init__(self) -> None:
        if bool(self.files) == (self.hub is not None):
            raise ValueError("split.files, split.hub: expected one of the two")


@dataclass(frozen=True)
class Source:
    """Where a set is published.

    Args:
        name: of the set.
        page: web page about it.
        licence: as stated on that page.
        splits: name -> part that can be downloaded.
        by_hand: how to get what cannot be downloaded by a program.
    """

    name: str
    page: str = ""
    licence: str = ""
    splits: Mapping[str, Split] = field(default_factory=dict)
    by_hand: str = ""


def list_sources(folder: Path = SOURCES) -> list[str]:
    """Names of the declared sets."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_source(name: str, folder: Path = SOURCES) -> Source:
    """Read the declaration of a set.

    Raises:
        ValueError: the set is unknown, or its declaration is invalid.
    """
    if name not in list_sources(folder):
        raise ValueError(f"no set {name!r}; known are {', '.join(list_sources(folder))}")
    path = folder / f"{name}.yaml"
    try:
        # `${oc.env:...}` is not resolved: a password could get into an address.
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        splits = {key: _read_split(value) for key, value in content.pop("splits", {}).items()}
        return Source(name, splits=splits, **content)
    except (ValueError, TypeError, AttributeError, KeyError, YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_split(content: dict[str, Any]) -> Split:
    files = tuple(File(**file) for file in content.pop("files", []))
    hub = content.pop("hub", None)
    return Split(files=files, hub=hub and HubFiles(**hub), **content)
