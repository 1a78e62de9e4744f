"""A tree of folders: the files of a set in it, and everything that is left out."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tff.safe_text import make_printable

#: Folders that file servers, archives and interpreters leave in any folder, in lower case. Folders
#: whose name begins with a dot (copies of editors, deleted files, caches of downloads) are alike.
_LEFT_BEHIND = {
    "__macosx", "__pycache__", "lost+found", "system volume information", "$recycle.bin",
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot",
}  # fmt: skip
#: Most ways by links to one folder: with a few links in each, their number doubles at each level.
_MAX_WAYS = 1000
_MAX_KINDS, _MAX_NAMES = 20, 8  # of files and of folders in a message
_UNREAD_BYTES = re.compile("[\ud800-\udfff]")  # stand for bytes that Python cannot read
_SUFFIX = re.compile(r"\.\w{1,10}")
_SPECIAL = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
_NOUNS = {"pipe", "socket", "device", "broken link", "link"}


@dataclass(frozen=True)
class Tree:
    """Content of a tree of folders. Folders are named relative to the root, with `/`.

    Attributes:
        root: the folder at the top, "" in names.
        folders: each folder that was looked into -> names of the files of the set in it, sorted.
        others: folder -> kind -> number of its other files.
        hidden: name of a hidden folder -> number of files that would be of the set.
        loops: links to a folder above them.
        broken: links to nothing, where no file of the set would stand.
    """

    root: Path
    folders: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, Counter[str]] = field(default_factory=dict)
    hidden: Counter[str] = field(default_factory=Counter)
    loops: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def holding(self) -> list[str]:
        """Folders with files of the set directly in them."""
        return [folder for folder, names in self.folders.items() if names]

    def files(self, folders: Iterable[str] | None = None) -> list[str]:
        """Files of the set, sorted: all, or those directly in some folders."""
        chosen = self.holding if folders is None else folders
        return sorted(join(folder, name) for folder in chosen for name in self.folders[folder])

    def describe_unread(self, belongs: Callable[[str], bool]) -> list[str]:
        """What is not read, and folders without a file to read.

        Args:
            belongs: whether a folder is one of the set, so that everything in it matters.
        """
        ours = [folder for folder in self.folders if belongs(folder)]
        kinds: Counter[str] = Counter()
        for folder in ours:
            kinds.update(self.others.get(folder, {}))
        parts = []
        if hidden := self.hidden.total():
            names = shorten(sorted(name for name, number in self.hidden.items() if number))
            parts.append(f"{hidden:,} in hidden folders ({names})")
        common = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        parts += [_count(number, kind) for kind, number in common[:_MAX_KINDS]]
        if rest := sum(number for _, number in common[_MAX_KINDS:]):
            parts.append(f"{rest:,} of other kinds")
        if self.loops:
            links = _count(len(self.loops), "link")
            parts.append(f"{links} back to a folder above ({shorten(self.loops)})")
        if self.broken:
            parts.append(f"{_count(len(self.broken), 'broken link')} ({shorten(self.broken)})")
        lines = [f"not read: {', '.join(parts)}"] if parts else []
        used = {above for folder in self.holding for above in folders_above(folder)}
        used.update(self.holding)
        empty = [folder for folder in ours if folder not in used]
        inner = {folder for folder in empty if {*folders_above(folder)} & set(empty)}
        if tops := [folder for folder in empty if folder not in inner]:
            lines.append(f"nothing to read in {shorten(tops)}")
        return lines


def walk(root: Path, suffixes: Collection[str]) -> Tree:
    """List the files of a set in a tree of folders, in an order that no file system decides.

    Links to folders are followed, each time they are reached; only a link to a folder above itself
    is not. Hidden files and folders, and those that other programs leave, are not read.

    Args:
        root: the folder at the top.
        suffixes: of the files of the set, in lower case.

    Raises:
        ValueError: a folder cannot be read, the name of a file of the set is not UTF-8, so that no
            report could hold it, or links multiply one folder.
    """
    tree = Tree(root)
    ways: Counter[str] = Counter()
    open_folders: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    while open_folders:
        folder, above = open_folders.pop()
        names: list[str] = []
        inner: list[tuple[str, bool]] = []
        others: Counter[str] = Counter()
        for entry in _list(root / folder):
            if _is_folder(entry):
                inner.append((entry.name, entry.is_symlink()))
            elif entry.name.startswith("."):
                others["hidden"] += 1
            elif _suffix(entry.name) in suffixes:
                names.append(entry.name)
            elif kind := _kind(entry, suffixes):
                others[kind] += 1
            else:
                tree.broken.append(join(folder, entry.name))
        _require_utf8(root / folder, names)
        tree.folders[folder] = sorted(names)
        if others:
            tree.others[folder] = others
        for name, is_link in sorted(inner):
            path = join(folder, name)
            if name.startswith(".") or name.lower() in _LEFT_BEHIND:
                tree.hidden[name] += _count_files(root / path, suffixes)
                continue
            real = os.path.realpath(root / path) if is_link else os.path.join(above[-1], name)
            if any(f"{one}/".startswith(f"{real.rstrip('/')}/") for one in above):
                tree.loops.append(path)
                continue
            ways[real] += 1
            if ways[real] > _MAX_WAYS:
                raise ValueError(
                    f"folder {root}: links lead to {real} in more than {_MAX_WAYS} ways; remove "
                    "links to folders that hold links themselves"
                )
            open_folders.append((path, (*above, real)))
    folders = dict(sorted(tree.folders.items()))
    return replace(tree, folders=folders, loops=sorted(tree.loops), broken=sorted(tree.broken))


def join(folder: str, name: str) -> str:
    """Path of a file or folder in a folder of a tree."""
    return f"{folder}/{name}" if folder else name


def folders_above(folder: str) -> list[str]:
    """Folders above one of a tree, from the root."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:end]) for end in range(len(parts))]


def shorten(names: Collection[str]) -> str:
    """The first names in printable form, and how many more there are."""
    shown = ", ".join(make_printable(name) or "the root" for name in list(names)[:_MAX_NAMES])
    return shown + (f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else "")


def _list(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ValueError(
            f"folder {folder}: cannot be read ({error.strerror}); make it readable, or move it out "
            "of the set"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or where nothing may be read
        return False


def _kind(entry: os.DirEntry[str], suffixes: Collection[str]) -> str:
    """Kind of a file that is not read; "" for a broken link."""
    try:
        mode = entry.stat().st_mode
    except OSError:
        return ""
    if not stat.S_ISREG(mode):
        return _SPECIAL.get(stat.S_IFMT(mode), "device")
    if not (suffix := _suffix(entry.name)):
        return "without suffix"
    if not _SUFFIX.fullmatch(suffix):
        return "with an unusual suffix"
    before = _suffix(entry.name[: -len(suffix)])  # .jpg.part: of an interrupted download
    return f"{before}{suffix}" if before in suffixes else suffix


def _suffix(name: str) -> str:
    stem, dot, end = name.rpartition(".")
    return f".{end.lower()}" if stem and dot and end else ""


def _require_utf8(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if not _UNREAD_BYTES.search(f"{folder}/{name}"):
            continue
        path = folder / name
        try:
            readable = os.fsencode(path).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(
                f"image file {str(path)!a}: its name or that of a folder is not UTF-8; rename it"
            ) from None
        raise ValueError(  # in a notebook: the scripts start in UTF-8 mode
            f"image file {readable}: Python does not read names as UTF-8 in this locale; start "
            "it with PYTHONUTF8=1"
        )


def _count_files(folder: Path, suffixes: Collection[str]) -> int:
    found = (name for _, _, names in os.walk(folder) for name in names)
    return sum(_suffix(name) in suffixes for name in found)


def _count(number: int, kind: str) -> str:
    return f"{number:,} {kind}" + ("s" if number > 1 and kind in _NOUNS else "")
