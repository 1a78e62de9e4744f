"""Checks of options: what a value may be is declared once, next to the option."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True)
class Allowed:
    """Values that an option may have.

    Attributes:
        holds: whether a value is allowed; a TypeError or ValueError means that it is not.
        expected: the allowed values in words, as they follow "expected" in a message; OPTION in it
            stands for the name of the option.
        complete: makes the paths in an allowed value full ones, below a given folder; None: the
            value holds no paths.
    """

    holds: Callable[[Any], bool]
    expected: str
    complete: Callable[[Any, Path], Any] | None = None

    def require(self, option: str, value: object) -> None:
        """Raise an error unless the value is allowed.

        Args:
            option: full name, as typed on the command line (`analysis.k_sweep.shares`).
            value: of the option.

        Raises:
            ValueError: with the option, its value, and what is expected.
        """
        if not self.allows(value):
            shown = str(list(value) if isinstance(value, tuple) else value)
            shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
            raise ValueError(
                f"{option}={shown}: expected {self.expected.replace('OPTION', option)}"
            )

    def allows(self, value: object) -> bool:
        """Whether a value, of any type, is allowed."""
        try:
            return bool(self.holds(value))
        except (TypeError, ValueError, AttributeError, OverflowError):
            return False


_LONGEST = 200  # characters of a value in a message


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _digits(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with names that are alike, or nothing."""
    close = difflib.get_close_matches(word, [str(name) for name in known])
    return f"; did you mean {' or '.join(close)}?" if close else ""


def number(
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> Allowed:
    """A finite number within limits: `least` and `most` are allowed, `above` and `below` not.

    Args:
        hint: added to the message, such as an example.
    """
    return _limited("a number", _is_number, hint, least, most, above, below)


def whole(least: int | None = None, most: int | None = None, hint: str = "") -> Allowed:
    """A whole number from `least` to `most`, both allowed."""
    return _limited("a whole number", _is_whole, hint, least, most)


def _limited(
    what: str, is_kind: Callable[[Any], bool], hint: str, least: float | None, most: float | None,
    above: float | None = None, below: float | None = None,
) -> Allowed:  # fmt: skip
    limits = (
        ("at least", operator.ge, least), ("above", operator.gt, above),
        ("at most", operator.le, most), ("below", operator.lt, below),
    )  # fmt: skip
    given = [(word, holds, limit) for word, holds, limit in limits if limit is not None]
    words = " and ".join(f"{word} {_digits(limit)}" for word, _, limit in given)
    if least is not None and most is not None:
        words = f"from {_digits(least)} to {_digits(most)}"
    elif words.startswith("at"):
        words = f"of {words}"
    return Allowed(
        lambda value: is_kind(value) and all(holds(value, limit) for _, holds, limit in given),
        f"{what} {words}".strip() + hint,
    )


def one_of(names: Collection[object]) -> Allowed:
    """One of a few values."""
    return Allowed(
        # 1 is not true, though equal to it.
        lambda value: any(
            value == n and isinstance(value, bool) is isinstance(n, bool) for n in names
        ),
        f"one of {', '.join(map(str, names))}",
    )


def some_of(names: Collection[str]) -> Allowed:
    """A list of some of these names, each once and at least one."""
    return Allowed(
        lambda value: _is_list(value) and 0 < len(value) == len(set(value)) <= len(names)
        and set(value) <= set(names),
        f"a list of different names from {', '.join(names)}",
    )  # fmt: skip


def each(allowed: Allowed, at_least_one: bool = False) -> Allowed:
    """A list of allowed elements; empty too, unless `at_least_one`."""
    complete = allowed.complete
    return Allowed(
        lambda value: _is_list(value) and (len(value) > 0 or not at_least_one)
        and all(allowed.holds(element) for element in value),
        f"a list, each element {allowed.expected}",
        complete and (lambda value, base: [complete(element, base) for element in value]),
    )  # fmt: skip


def interval(end: Allowed) -> Allowed:
    """The two ends [low, high] of an interval that numbers are drawn from; equal ends fix them."""
    return Allowed(
        lambda value: _is_list(value) and len(value) == 2
        and all(end.holds(number) for number in value) and value[0] <= value[1],
        f"[low, high] with low <= high, each {end.expected}",
    )  # fmt: skip


#: Text, empty too.
TEXT = Allowed(
    lambda value: isinstance(value, str),
    "text; what looks like a number, true, false or null needs quotes: OPTION='\"1_5\"'",
)
#: A path of a file or folder.
PATH = Allowed(
    lambda value: isinstance(value, str | os.PathLike) and os.fspath(value) != "",
    "a path",
    lambda value, base: os.path.normpath(base / os.path.expanduser(value)),
)
#: Names of folders and the like: a list, or a single one.
NAMES = Allowed(
    lambda value: bool(_to_list(value)) and all(_is_name(name) for name in _to_list(value)),
    "a list of names; one that looks like a number, true, false or null needs quotes: "
    "'OPTION=[\"1_5\"]'",
)


def to_names(option: str, value: object) -> list[str] | None:
    """The names in the value of an option; a whole number is taken for the name of its digits.

    Args:
        option: for messages.
        value: a list of names, a single name, or None for none.

    Raises:
        ValueError: the list is empty, or an element was no text: Hydra and YAML make 15 of `1_5`.
    """
    if value is None:
        return None
    NAMES.require(option, value)
    return [str(name) for name in _to_list(value)]


def _to_list(value: object) -> Sequence[Any]:
    return value if _is_list(value) else [value]  # type: ignore[return-value]


def _is_name(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, str) and value != "")


#: Seed of NumPy's and PyTorch's generators.
SEED = whole(0, 2**32 - 1)
#: True or false, and nothing that counts as one of them.
BOOLEAN = Allowed(lambda value: isinstance(value, bool), "true or false")
_PLAIN = (str, bytes, int, float, list, Mapping, NoneType)
#: What the configuration makes of settings with `_target_`.
_OBJECT = Allowed(
    lambda value: not isinstance(value, _PLAIN) and type(value) is not tuple,
    "a class, such as OPTION._target_=PACKAGE.CLASS",
)


def any_of(choices: Sequence[Allowed]) -> Allowed:
    """A value that one of these allows; the first one decides whether it is a path."""

    def complete(value: Any, base: Path) -> Any:
        first = next(one for one in choices if one.allows(value))
        return first.complete(value, base) if first.complete else value

    words = [one.expected for one in choices if one is not _OBJECT]
    if not set(words) - {"null"}:
        words.insert(0, _OBJECT.expected)
    return Allowed(
        lambda value: any(one.allows(value) for one in choices),
        ", or ".join(dict.fromkeys(words)),
        complete if any(one.complete for one in choices) else None,
    )


#: One path, or a list of several.
PATHS = any_of([PATH, each(PATH, at_least_one=True)])


@dataclass(frozen=True)
class FieldsOf:
    """In the annotation of `**options`: they become the fields of this class."""

    cls: type


def checked(prefix: str) -> Callable[[C], C]:
    """Decorator that checks options: the fields of a dataclass, or the arguments of a function.

    The annotation declares the allowed values, see `allowed_by`: `bool`,
    `Annotated[float, number(above=0)]`, `Literal["zero", "mean"]`. For a dataclass it stands below
    `@dataclass`, and `__post_init__` of the class runs after the checks. For another class it
    stands above `__init__`.

    >>> @dataclass(frozen=True)
    ... @checked("ablation")
    ... class Blur:
    ...     sigma: Annotated[float, number(above=0, most=100)] = 2.0
    >>> Blur(-1)
    Traceback (most recent call last):
    ValueError: ablation.sigma=-1: expected a number above 0 and at most 100

    Args:
        prefix: of the names on the command line.
    """

    def decorate(target: C) -> C:
        if isinstance(target, type):
            return _check_fields(target, prefix)  # type: ignore[return-value]
        return _check_arguments(target, prefix)  # type: ignore[return-value]

    return decorate


def _check_fields(cls: type, prefix: str) -> type:
    after = cls.__dict__.get("__post_init__")
    checks = functools.cache(lambda: _checks(cls))

    def check(self: Any) -> None:
        for name, allowed in checks().items():
            allowed.require(f"{prefix}.{name}", getattr(self, name))
        if after is not None:
            after(self)

    cls.__post_init__ = check  # type: ignore[attr-defined]
    return cls


def _check_arguments(function: Callable[..., Any], prefix: str) -> Callable[..., Any]:
    signature = inspect.signature(function)
    checks = functools.cache(lambda: _checks(function))

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        for name, allowed in checks().items():
            if name in given:
                allowed.require(f"{prefix}.{name}", given[name])
        return function(*args, **options)

    return call


def _checks(target: Any) -> dict[str, Allowed]:
    hints = get_type_hints(target, include_extras=True)
    found = {name: allowed_by(hint) for name, hint in hints.items() if name != "return"}
    return {name: allowed for name, allowed in found.items() if allowed is not None}


def allowed_by(hint: Any) -> Allowed | None:
    """The values that an annotation allows; None if it allows any.

    An `Allowed` in the annotation decides. Without one: `bool` is true or false, `int` a whole and
    `float` a finite number, `str` text, `Path` a path, `Literal` one of its values, a sequence a
    list, any other class settings that make an object. `| None` adds null.
    """
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        own = next((extra for extra in hint.__metadata__ if isinstance(extra, Allowed)), None)
        return own or allowed_by(arguments[0])
    if kind is Literal:
        return one_of(arguments)
    if kind in (Union, UnionType):
        return _allowed_by_union(arguments)
    if hint in _KINDS:
        return _KINDS[hint]
    kind = kind or hint
    if kind is Any or not isinstance(kind, type):  # or a type variable
        return None
    if issubclass(kind, Mapping):
        values = allowed_by(arguments[1]) if len(arguments) == 2 else None
        return Allowed(
            lambda value: (
                isinstance(value, Mapping)
                and all(values is None or values.holds(one) for one in value.values())
            ),
            "settings" if values is None else f"settings, each of them {values.expected}",
        )
    if issubclass(kind, tuple) and arguments and arguments[-1] is not Ellipsis:
        return _several([allowed_by(one) for one in arguments])
    if kind in (tuple, list, Sequence, Iterable, Collection):
        element = allowed_by(arguments[0]) if arguments else None
        return each(element or Allowed(lambda _: True, "anything"))
    return _OBJECT


_KINDS = {
    bool: BOOLEAN, int: whole(), float: number(), str: TEXT, Path: PATH,
    NoneType: Allowed(lambda value: value is None, "null"),
}  # fmt: skip


def _allowed_by_union(hints: Iterable[Any]) -> Allowed | None:
    # Null last in the words; int says nothing beside float.
    hints = sorted(hints, key=lambda hint: hint is NoneType)
    parts = [allowed_by(hint) for hint in hints if not (hint is int and float in hints)]
    known = [part for part in parts if part is not None]
    return any_of(known) if len(known) == len(parts) else None


def _several(parts: Sequence[Allowed | None]) -> Allowed:
    words = ", ".join(part.expected if part else "anything" for part in parts)
    return Allowed(
        lambda value: _is_list(value) and len(value) == len(parts)
        and all(p is None or p.holds(v) for p, v in zip(parts, value, strict=True)),
        f"a list of {len(parts)}: {words}",
    )  # fmt: skip
