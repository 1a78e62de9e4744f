"""Where in a tree of folders the labels, generators and classes stand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Folder name -> label. The nearest folder above an image decides, never the alphabet.
LABELS = {name: 0 for name in ("0_real", "real", "REAL", "nature")} | {
    name: 1 for name in ("1_fake", "fake", "FAKE", "ai")
}
_PART = re.compile(r"\{(generator|class|label)\}|\{class\*\}")


@dataclass(frozen=True)
class Place:
    """What the folders above an image say about it."""

    label: int
    generator: str
    group: str


@dataclass(frozen=True)
class Layout:
    """How one set (train, val or test) lies in its tree.

    Args:
        folders: patterns of the folders from the root down, tried in order. In them `{label}` is a
            folder named in `LABELS`, `{generator}` and `{class}` any one folder, `{class*}` any
            number of them, `*` one that says nothing, and the rest is literal; below it folders
            may follow. A pattern without `{label}` is of the kind that a literal folder names, or
            of generated images.
        generator: name where no folder says it; for real images it is their own folder's.
        real_of: generator -> the name under which the real images that belong to it stand, where
            they are not their own; `*` stands for all generators not named.

    Raises:
        ValueError: a pattern holds an unknown name in braces.
    """

    folders: Sequence[str]
    generator: str = ""
    real_of: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pattern in self.folders:
            rest = _PART.sub("", pattern)
            if "{" in rest or "}" in rest:
                raise ValueError(
                    f"layout {pattern!r}: in braces there may stand generator, class, class* or "
                    "label"
                )
        object.__setattr__(self, "_patterns", [_compiled(p) for p in self.folders])

    def place(self, folder: str) -> Place | None:
        """What a folder, relative to the root and with `/` between, says; None: nothing."""
        for pattern, literal in self._patterns:  # type: ignore[attr-defined]
            match = pattern.fullmatch(folder + "/")
            if match:
                parts = match.groupdict()
                says = parts.get("label") or literal
                generator = parts.get("generator") or self.generator or literal or ""
                group = (parts.get("class") or "").strip("/")
                return Place(LABELS.get(says, 1), generator, group)
        return None

    def real(self, generator: str) -> str:
        """The `generator` of the real images that belong to a generator."""
        return real_source(generator, self.real_of)


def real_source(generator: str, real_of: Mapping[str, str]) -> str:
    """The name under which the real images that belong to a generator stand."""
    return real_of.get(generator, real_of.get("*", generator))


def _compiled(pattern: str) -> tuple[re.Pattern[str], str | None]:
    """A pattern of folders as a regular expression on `a/b/c/`, and the literal label in it."""
    parts = []
    for part in pattern.split("/"):
        if part == "{class*}":
            parts.append(r"(?P<class>(?:[^/]+/)*)")
        elif part == "{label}":
            parts.append(f"(?P<label>{'|'.join(map(re.escape, LABELS))})/")
        else:
            pieces = re.split(r"(\{\w+\}|\*)", part)
            parts.append("".join(_piece(piece) for piece in pieces) + "/")
    literal = next((part for part in reversed(pattern.split("/")) if part in LABELS), None)
    return re.compile("".join(parts) + r"(?:[^/]+/)*"), literal


def _piece(piece: str) -> str:
    if piece == "*":
        return "[^/]+"
    return f"(?P<{piece[1:-1]}>[^/]+)" if piece.startswith("{") else re.escape(piece)
