"""Label, generator, class and split of an image, read from the folders above it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Protocol

from tff.data.tree import Tree, shorten
from tff.options import Allowed, checked, each

#: Name of a folder -> label, whatever the alphabet says.
LABELS = {name: 0 for name in ("0_real", "real", "REAL", "nature")} | {
    name: 1 for name in ("1_fake", "fake", "FAKE", "ai")
}
_ONLY_LABELS = {"0_real", "1_fake"}  # nobody calls a generator or a class so
#: Name of a folder in lower case -> the split that it may be.
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_ORDER = {"train": 0, "val": 1, "test": 2}
_PLACEHOLDER = re.compile(r"\{(generator|class|label)\}|\{class\*\}")
_Parts = tuple[str, ...]  # names of the folders in a path
_PATTERNS = each(
    Allowed(
        lambda pattern: not set("{}") & set(_PLACEHOLDER.sub("", pattern)),
        "a path with {generator}, {class}, {class*} or {label} in it",
    )
)


@dataclass(frozen=True)
class FolderFacts:
    """What the folders above an image state.

    Attributes:
        label: 0 real, 1 generated.
        generator: its name, or "" if no folder names it.
        class_name: "" without classes.
        split: `train`, `val` or `test`, or "" if no folder says it.
    """

    label: int
    generator: str
    class_name: str
    split: str = ""


class Places(Protocol):
    """Meaning of the folders of a tree."""

    @property
    def expected(self) -> str:
        """Where labels are expected, for messages."""

    def read(self, tree: Tree) -> dict[str, FolderFacts]:
        """Facts of each folder with images that has a label.

        Raises:
            ValueError: folders contradict each other, or their meaning cannot be decided.
        """

    def is_labelled(self, folder: str) -> bool:
        """Whether images in a folder have a label."""

    def real_source(self, generator: str) -> str:
        """The `generator` of the real images that a generator is compared with."""


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

    @property
    def expected(self) -> str:
        return " or ".join(self.folders)

    def read(self, tree: Tree) -> dict[str, FolderFacts]:
        facts = {folder: self.parse(folder) for folder in tree.holding}
        found = {folder: fact for folder, fact in facts.items() if fact is not None}
        if any("{class*}" in pattern for pattern in self.folders):  # a label may be anywhere
            _find_labels(tree.root, {folder: tuple(folder.split("/")) for folder in found})
        return found

    def is_labelled(self, folder: str) -> bool:
        return self.parse(folder) is not None

    def real_source(self, generator: str) -> str:
        return real_source(generator, self.real_of)


@dataclass(frozen=True)
class AnyTree:
    """Layout that is read from the folders of a tree themselves.

    A folder of `LABELS` names the label, the first folder of another name the generator, and those
    between them the class. Folders of `SPLIT_NAMES`, at any depth, are the splits where they stand
    among themselves: `train` beside `car` and `dog` is the name of a generator or a class. In the
    same way, `ai` is a name above `0_real` and `1_fake`.

    Args:
        generator: name of the generator if no folder says it.
        test_only: generators of which all images are test images, or `all`.
        split_folders: whether folders of `SPLIT_NAMES` are splits (true) or names (false); None
            decides by the folders beside them.
    """

    generator: str = ""
    test_only: Sequence[str] | str = ()
    split_folders: bool | None = None
    expected = "GENERATOR/.../0_real and 1_fake"

    def read(self, tree: Tree) -> dict[str, FolderFacts]:
        labelled = {f: tuple(f.split("/")) for f in tree.holding if self.is_labelled(f)}
        splits = self._find_splits(tree.root, labelled)
        paths = {
            folder: path if (at := splits.get(folder)) is None else path[:at] + path[at + 1 :]
            for folder, path in labelled.items()
        }
        facts = {}
        for folder, first in _find_labels(tree.root, paths).items():
            path = paths[folder]
            generator = path[0] if first else self.generator
            split = split_of(labelled[folder][splits[folder]]) if folder in splits else ""
            whole = splits and (generator or name_root(tree.root)) in self.test_only
            if whole or self.test_only == "all":
                split = "test"
            classes = "/".join(path[1:first])
            facts[folder] = FolderFacts(LABELS[path[first]], generator, classes, split)
        return facts

    def describe(self, facts: Mapping[str, FolderFacts]) -> list[str]:
        """Remarks on folders whose meaning was not obvious."""
        words = {name for folder in facts for name in folder.split("/") if split_of(name)}
        if words and not any(fact.split for fact in facts.values()) and self.split_folders is None:
            return [f"{shorten(sorted(words))}: names of generators or classes here, not splits"]
        other = sorted(f"{name} as {split_of(name)}" for name in words if split_of(name) != name)
        return [f"folders read as splits: {', '.join(other)}"] if other else []

    def is_labelled(self, folder: str) -> bool:
        return not LABELS.keys().isdisjoint(folder.split("/"))

    def real_source(self, generator: str) -> str:
        return generator

    def _is_test_only(self, generator: str) -> bool:
        return self.test_only == "all" or generator in self.test_only

    def _find_splits(self, root: Path, paths: Mapping[str, _Parts]) -> dict[str, int]:
        """Folder -> position of its split in its path; empty if the tree is not divided."""
        if self.split_folders is False:
            return {}
        among_splits, alone = self._find_parents_of_splits(root, paths.values())
        splits, undivided = {}, []
        for folder, path in paths.items():
            positions = [i for i, name in enumerate(path) if split_of(name)]
            found = [i for i in positions if path[:i] in among_splits]
            if len(found) > 1 and self.split_folders is None and self.test_only != "all":
                raise ValueError(
                    f"image folder {root}: two folders above {shorten([folder])} could be its "
                    f"split, {path[found[0]]} and {path[found[1]]}; rename one, or pass "
                    "data.split_folders=true, which takes the first, or =false, which takes none"
                )
            if found := found or [i for i in positions if path[:i] in alone]:
                splits[folder] = found[0]
            elif not self._is_test_only(path[0]):
                undivided.append(folder)
        if undivided and among_splits:
            _refuse_partly_divided(root, list(splits), undivided)
        return {} if undivided else splits

    def _find_parents_of_splits(
        self, root: Path, paths: Iterable[_Parts]
    ) -> tuple[set[_Parts], set[_Parts]]:
        """Folders that hold several splits and nothing else, and those that hold only one split."""
        inside: defaultdict[_Parts, set[str]] = defaultdict(set)
        for path in paths:
            for i, name in enumerate(path):
                inside[path[:i]].add(name)
            inside[path].add("")  # images
        several, alone = set(), set()
        for above, names in inside.items():
            words = sorted(filter(split_of, names), key=lambda name: (_ORDER[split_of(name)], name))
            others = [n for n in names - {*words} if above or not self._is_test_only(n)]
            where = f"image folder {root.joinpath(*above)}: folders {', '.join(words)}"
            if len(words) > 1 and others and self.split_folders is None:
                beside = ",".join(sorted(n or "images" for n in others))
                test = "" if above else f", or pass data.test_only=[{beside}] to test on them only"
                raise ValueError(
                    f"{where} stand beside {beside}; if they are splits, move {beside} elsewhere"
                    f"{test}; if they are generators or classes, pass data.split_folders=false"
                )
            if len(words) > 1 and len({*map(split_of, words)}) < len(words):
                raise ValueError(f"{where}: two of them name one split; merge them")
            if len(words) > 1 or (words and self.split_folders):
                several.add(above)
            elif words and not others:
                alone.add(above)
        return several, alone


def _refuse_partly_divided(root: Path, divided: list[str], undivided: list[str]) -> None:
    generators = [sorted({path.split("/")[0] for path in part}) for part in (divided, undivided)]
    if set(generators[0]) & set(generators[1]):
        raise ValueError(
            f"image folder {root}: {shorten(divided)} are in folders of a split, but not "
            f"{shorten(undivided)}; divide all, or if those folders are no splits, pass "
            "data.split_folders=false"
        )
    raise ValueError(
        f"image folder {root}: train, val and test divide {shorten(generators[0])}, but "
        f"not {shorten(generators[1])}; divide all, or if these are for the test only, pass "
        f"data.test_only=[{','.join(generators[1])}]"
    )


def name_root(root: Path) -> str:
    """Name of the generator in a tree whose folders name none: that of the tree.

    Raises:
        ValueError: the tree has no name.
    """
    if not (name := find_named_folder(root).name):
        raise ValueError(
            f"image folder {root}: neither this folder nor one in it names the generator; pass "
            "data.generator=NAME"
        )
    return name


def find_named_folder(root: Path) -> Path:
    """The folder after which a tree is called: its root, or that above if the root is a split."""
    folder = root.resolve()
    while split_of(folder.name):
        folder = folder.parent
    return folder


def _find_labels(root: Path, paths: Mapping[str, _Parts]) -> dict[str, int]:
    """Folder -> position of the first folder in its path that names a label.

    Args:
        root: of the tree, for messages.
        paths: folder -> its parts, without that of a split.

    Raises:
        ValueError: two folders in a path name different labels.
    """
    names = _find_names_like_labels(paths.values())
    first, contradictions = {}, []
    for folder, path in paths.items():
        said = [i for i, n in enumerate(path) if n in LABELS and path[: i + 1] not in names]
        if said:
            first[folder] = said[0]
        if len({LABELS[path[i]] for i in said}) > 1:
            contradictions.append(f"{folder} ({' and '.join(path[i] for i in said)})")
    if contradictions:
        raise ValueError(
            f"image folder {root}: folders contradict each other, one says real and one generated: "
            f"{shorten(contradictions)}; rename the one that is no label"
        )
    return first


def _find_names_like_labels(paths: Iterable[_Parts]) -> set[_Parts]:
    """Folders called like a label that hold both labels, and so are generators or classes."""
    inside: defaultdict[_Parts, set[str]] = defaultdict(set)
    for path in paths:
        words = [i for i, name in enumerate(path) if name in LABELS]
        for i in words:
            inside[path[: i + 1]].add(path[words[-1]] if words[-1] > i else "")
    names = {
        folder
        for folder, words in inside.items()
        if folder[-1] not in _ONLY_LABELS and {LABELS.get(word) for word in words} == {0, 1}
    }
    # real/{real,fake} beside fake/{real,fake}: which ones are the labels?
    claims = {(folder[:-1], LABELS[folder[-1]]) for folder in names}
    return {
        folder
        for folder in names
        if inside[folder] <= _ONLY_LABELS or (folder[:-1], 1 - LABELS[folder[-1]]) not in claims
    }


def split_of(name: str) -> str:
    """The split that a folder of this name may be, or ""."""
    return SPLIT_NAMES.get(name.lower(), "")


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
