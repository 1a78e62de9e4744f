"""Options as they are typed: paths and names quoted for Hydra, and the same path in one form."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

#: Options that hold a path, or a list of them.
PATHS = (
    "ckpt", "out", "passes", "run", "runs", "hydra.run.dir", "hydra.sweep.dir",
    "data.root", "data.photos", "data.cache", "discovery.root", "discovery.photos",
    "discovery.cache", "detector.pretrained", "detector.head",
    "analysis.heatmaps.files", "analysis.cams.files",
    "analysis.ranking_agreement.other",
)  # fmt: skip
#: Options that hold a name, or a list of them.
NAMES = (
    "data.generators", "data.classes", "data.generator", "data.test_only",
    "discovery.generators", "discovery.classes", "discovery.generator", "discovery.test_only",
    "tags", "analyze_options", "experiment", "detector.name", "analysis.cams.layer",
    "logger.wandb.name",
    "logger.wandb.group", "logger.wandb.project", "logger.wandb.entity",
)  # fmt: skip
#: Groups that are also accepted with a dot, as their values are written.
GROUPS = {"report.protocol": "report/protocol"}
#: Text that Hydra takes literally without quotes; `_WORDS` it takes for other values.
_LITERAL = re.compile(r"[A-Za-z_][\w./+@-]*", re.ASCII)
_WORDS = ("null", "true", "false", "nan", "inf")
_FUNCTION = re.compile(r"(?:choice|range|interval|glob|sort|shuffle|tag|str)\(.*\)", re.DOTALL)


def quote_paths(arguments: Iterable[str]) -> list[str]:
    """Quote the values of path and name options, so that Hydra takes them literally.

    `ckpt=runs/epoch=3 (best).ckpt` then means that file, `~` the home folder, and
    `data.generators=[2023,1_5,null]` these three folders; Hydra alone would read numbers and null.
    Elements of lists, and with `-m` values between commas, are quoted one by one. What is quoted or
    escaped, refers to other options (`${...}`) or is null stays as it is.
    """
    arguments = list(arguments)
    sweep = is_sweep(arguments)
    return [_quote_argument(argument, sweep) for argument in arguments]


def is_sweep(arguments: Iterable[str]) -> bool:
    """Whether a command runs several jobs."""
    return bool({"-m", "--multirun"} & set(arguments))


def _quote_argument(argument: str, sweep: bool) -> str:
    key, equals, value = argument.partition("=")
    if key in GROUPS:
        return f"{GROUPS[key]}={value}"
    option = key.lstrip("+")
    if not equals or option not in PATHS + NAMES or "${" in value or "\\=" in value:
        return argument
    if value in ("", "null") or (option == "detector.pretrained" and value in ("true", "false")):
        return argument
    parts = _split(value) if sweep or option in NAMES else [value]
    one = len(parts) == 1 and not _is_list(value)
    if one and option in PATHS and not (sweep and _FUNCTION.fullmatch(value)):
        return f"{key}={_quote_always(value)}"
    if len(parts) > 1 and not sweep:
        return argument  # Hydra explains what it may mean
    return f"{key}={','.join(_quote_value(part, sweep) for part in parts)}"


def _quote_value(value: str, sweep: bool) -> str:
    """A list with each element quoted, or a value that is quoted where it has to be."""
    if _is_list(value):
        return f"[{','.join(_quote_element(part) for part in _split(value[1:-1]))}]"
    if value == "null" or (sweep and _FUNCTION.fullmatch(value)):
        return value
    return _quote_element(value)


def _quote_element(value: str) -> str:
    literal = _LITERAL.fullmatch(value.strip()) and value.strip().lower() not in _WORDS
    return value if literal or not value.strip() else _quote_always(value.strip())


def _quote_always(value: str) -> str:
    if value[:1] in ("'", '"'):
        return value
    # Backslashes count only before a quote.
    expanded = re.sub(r'(\\*)(")|(\\+)$', _escape, os.path.expanduser(value))
    return f'"{expanded}"'


def _escape(match: re.Match[str]) -> str:
    return 2 * (match[1] or match[3] or "") + ('\\"' if match[2] else "")


def _is_list(value: str) -> bool:
    return value[:1] == "[" and value[-1:] == "]"


def _split(value: str) -> list[str]:
    """Parts between the commas that stand in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for position, letter in enumerate(value):
        if quote:
            quote = "" if letter == quote and value[position - 1] != "\\" else quote
        elif letter in "'\"" and not parts[-1].strip():
            quote = letter
        else:
            depth += (letter in "[({") - (letter in "])}")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def unify_paths(option: str, folder: Path | str | None = None) -> str:
    """An option as typed, with its paths relative to a folder where they lie in it, else full.

    The same path then reads the same, however it was typed.

    Args:
        option: such as `data.root="../t"`.
        folder: in which the command was typed; None: the working folder.
    """
    key, equals, value = option.partition("=")
    if not equals or key.lstrip("+") not in PATHS or value in ("", "null", "true", "false"):
        return option
    base = Path(folder or os.getcwd())
    return f"{key}={_map_paths(value, lambda path: _relative(path, base))}"


def _map_paths(value: str, change: Callable[[str], str]) -> str:
    if _is_list(value):
        return f"[{','.join(_map_paths(part, change) for part in _split(value[1:-1]))}]"
    if "${" in value or "\\" in value or not value:
        return value
    quote = value[0] if value[0] in "'\"" and value[0] == value[-1] and len(value) > 1 else ""
    return f"{quote}{change(value[len(quote) : len(value) - len(quote)])}{quote}"


def _relative(path: str, base: Path) -> str:
    full = Path(os.path.normpath(base / os.path.expanduser(path)))
    return str(full.relative_to(base)) if full.is_relative_to(base) else str(full)
