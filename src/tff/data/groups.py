"""Groups of images that come from one source, such as a photograph, a scene or a person.

Images of a group are alike, and a sample of other sources would lack all of them. So intervals draw
groups as a whole, and a division into training and test keeps them whole.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from tff.data.layout import LABELS, split_of
from tff.foreign_files import read_file
from tff.options import Allowed

_MAX_BYTES = 1 << 30  # of a table of groups


def _is_rule(value: object) -> bool:
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        return value.endswith(".csv") or "(" not in value or re.compile(value).groups == 1
    except re.error:
        return False


_EXPECTED = (
    "name (files of the same name), folder, a regular expression for the path below the root with "
    r"one group in parentheses, such as '(?P<person>\d+)_', or a CSV file with columns path and "
    "group"
)
#: Allowed values of the option `group`.
GROUP = Allowed(
    _is_rule,
    f"{_EXPECTED}; for Parquet files, a column",
    lambda value, base: (
        os.path.normpath(base / os.path.expanduser(value)) if value.endswith(".csv") else value
    ),
)


def name_unit(rule: str) -> str:
    """What a group is, in a word: the name of the group in a regular expression, or "group"."""
    names = re.compile(rule).groupindex if _is_pattern(rule) else {}
    return next(iter(names), "group")


def find_groups(rule: str, root: Path, table: pd.DataFrame) -> pd.Series[str]:
    """Group of each image; "" where it is a group of its own.

    Args:
        rule: `name`: files of the same name without suffix, in whatever folders, are a group.
            `folder`: so are those in folders of the same name; it is the innermost folder that is
            neither label, split nor generator. A regular expression: those with the same text in
            its group; files that it does not match are on their own. Path of a CSV file: its
            columns `path` (below the root) and `group`, which may be empty.
        root: of the set.
        table: of a manifest.

    Raises:
        FileNotFoundError: no such CSV file.
        ValueError: the rule finds no group where it must; the message says where.
    """
    start = len(str(root / "_")) - 1
    files = table["path"].str.slice(start)
    if rule.endswith(".csv"):
        return _look_up(files, Path(rule).expanduser())
    if _is_pattern(rule):
        found = files.str.extract(rule, expand=False).fillna("")
        if (found == "").all():
            raise ValueError(
                f"data.group={rule}: matches no image of {root}, such as {files.iloc[0]}; it is "
                "compared with the path below the root"
            )
        return found
    if rule == "name":
        return files.map(lambda file: PurePosixPath(file).stem)
    if rule == "folder":
        return _find_folders(files, table["generator"])
    raise ValueError(f"data.group={rule}: expected {_EXPECTED}")


def _is_pattern(rule: str) -> bool:
    return "(" in rule and not rule.endswith(".csv")


def _find_folders(files: pd.Series[str], generators: pd.Series[str]) -> pd.Series[str]:
    def innermost(folder: str, generator: str) -> str:
        taken = {*LABELS, generator}
        names = (n for n in reversed(folder.split("/")) if n not in taken and not split_of(n))
        return next(names, "")

    folders = files.str.rpartition("/")[0]
    pairs = zip(folders, generators, strict=True)
    known = {pair: innermost(*pair) for pair in {*zip(folders, generators, strict=True)}}
    found = pd.Series([known[pair] for pair in pairs], files.index, dtype="str")
    if len(lost := files[found == ""]):
        raise ValueError(
            f"data.group=folder: no folder above {len(lost):,} of {len(files):,} images, such as "
            f"{lost.iloc[0]}, names a group: there are only labels, splits and generators"
        )
    return found


def _look_up(files: pd.Series[str], path: Path) -> pd.Series[str]:
    content = io.BytesIO(read_file(path, _MAX_BYTES))
    try:
        rows = pd.read_csv(content, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:  # those of pandas are derived from it
        reason = " ".join(str(error).split())
        raise ValueError(f"data.group={path}: cannot be read as CSV ({reason})") from None
    if missing := {"path", "group"} - {*rows.columns}:
        raise ValueError(f"data.group={path}: no column {' and '.join(sorted(missing))}")
    rows = rows[["path", "group"]].drop_duplicates()
    if len(twice := rows["path"][rows["path"].duplicated()]):
        raise ValueError(f"data.group={path}: two groups for {twice.iloc[0]}")
    found = files.map(rows.set_index("path")["group"])
    if len(lost := files[found.isna()]):
        raise ValueError(
            f"data.group={path}: no row for {len(lost):,} of {len(files):,} images, such as "
            f"{lost.iloc[0]}; its paths begin below data.root, and an empty group is allowed"
        )
    return found


def count_shared(names: pd.Series[str], others: pd.Series[str]) -> tuple[int, int]:
    """Number of images whose group occurs among others, and of these groups.

    Args:
        names: group of each image, "" for none.
        others: groups of the others.
    """
    common = names[names.isin(others) & (names != "")]
    return len(common), common.nunique()


def count_units(number: int, unit: str) -> str:
    """A number of groups in words: `1 photograph`, `12 persons`."""
    return f"{number:,} {unit}{'' if number == 1 else 's'}"
