"""Label, generator and class of an image, read from the folders above it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from tff.options import Allowed, checked, each

#: Name of a folder -> label. The nearest folder above an image decides, not the alphabet.
LABELS = {name: 0 for name in ("0_real", "real", "REAL", "nature")} | {
    name: 1 for name in ("1_fake", "fake", "FAKE", "ai")
}
_PLACEHOLDER = re.compile(r"\{(generator|class|label)\}|\{class\*\}")
_PATTERNS = each(
    Allowed(
        lambda pattern: not set("{}") & set(_PLACEHOLDER.sub("", pattern)),
        "a path with {generator}, {class}, {class*} or {label} in it",
    )
)


@dataclass(frozen=True)
class FolderFacts:
    """Label, generator and class that the folders above an image state."""

    label: int
    generator: str
    class_name: str


@dataclass(frozen=True)
@checked("data.layout")
class Layout:
    """Layout of one split in a tree of folders.

    Args:
        folders: patterns of folders relative to the root, tried in order. `{label}` is a folder of
            `LABELS`, `{generator}` and `{class}` are any one folder, `{class*}` is any number of
            them, `*` is one without a meaning, and all else is literal; more folders may follow
            below. The label of a pattern without `{label}` is that of a literal folder in it, else
            1 (generated).
        generator: name of the generator if no folder says it. Real images then get the name of
            their own folder.
        real_of: generator -> name of the real images that it is compared with, if not its own; `*`
            stands for all other generators.

    Raises:
        ValueError: a pattern holds an unknown name in braces.
    """

    folders: Annotated[Sequence[str], _PATTERNS]
    generator: str = ""
    real_of: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_patterns", [_compile(p) for p in self.folders])

    def parse(self, folder: str) -> FolderFacts | None:
        """Facts in the path of a folder (relative to the root, with `/`), or None."""
        for pattern, literal in self._patterns:  # type: ignore[attr-defined]
            match = pattern.fullmatch(folder + "/")
            if match:
                parts = match.groupdict()
                name = parts.get("label") or literal
                generator = parts.get("generator") or self.generator or literal or ""
                class_name = (parts.get("class") or "").strip("/")
                return FolderFacts(LABELS.get(name, 1), generator, class_name)
        return None

    def real_source(self, generator: str) -> str:
        """The `generator` of the real images that a generator is compared with."""
        return real_source(generator, self.real_of)


def real_source(generator: str, real_of: Mapping[str, str]) -> str:
    """The `generator` of the real images that a generator is compared with; see `Layout`."""
    return real_of.get(generator, real_of.get("*", generator))


def _compile(pattern: str) -> tuple[re.Pattern[str], str | None]:
    """A pattern as a regular expression for `a/b/c/`, and the literal label in it."""
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
