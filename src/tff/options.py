"""Checks of options: what a value may be is declared once, next to the option."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class Allowed:
    """Values that an option may have.

    Attributes:
        holds: whether a value is allowed; a TypeError or ValueError means that it is not.
        expected: the allowed values in words, as they follow "expected" in a message.
    """

    holds: Callable[[Any], bool]
    expected: str

    def require(self, option: str, value: object) -> None:
        """Raise an error unless the value is allowed.

        Args:
            option: full name, as typed on the command line (`analysis.k_sweep.shares`).
            value: of the option.

        Raises:
            ValueError: with the option, its value, and what is expected.
        """
        try:
            allowed = bool(self.holds(value))
        except (TypeError, ValueError):
            allowed = False
        if not allowed:
            shown = list(value) if isinstance(value, tuple) else value
            raise ValueError(f"{option}={shown}: expected {self.expected}")


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
    return Allowed(lambda value: value in names, f"one of {', '.join(map(str, names))}")


def some_of(names: Collection[str]) -> Allowed:
    """A list of some of these names, each once and at least one."""
    return Allowed(
        lambda value: _is_list(value) and 0 < len(value) == len(set(value)) <= len(names)
        and set(value) <= set(names),
        f"a list of different names from {', '.join(names)}",
    )  # fmt: skip


def each(allowed: Allowed, at_least_one: bool = False) -> Allowed:
    """A list of allowed elements; empty too, unless `at_least_one`."""
    return Allowed(
        lambda value: _is_list(value) and (len(value) > 0 or not at_least_one)
        and all(allowed.holds(element) for element in value),
        f"a list, each element {allowed.expected}",
    )  # fmt: skip


def interval(end: Allowed) -> Allowed:
    """The two ends [low, high] of an interval that numbers are drawn from; equal ends fix them."""
    return Allowed(
        lambda value: _is_list(value) and len(value) == 2
        and all(end.holds(number) for number in value) and value[0] <= value[1],
        f"[low, high] with low <= high, each {end.expected}",
    )  # fmt: skip


def checked(prefix: str) -> Callable[[C], C]:
    """Class decorator, below `@dataclass`, that checks the fields of each new instance.

    The annotation of a field declares the allowed values: `Annotated[float, number(above=0)]`, or
    `Literal["zero", "mean"]`. None is allowed where the annotation includes it. `__post_init__` of
    the class runs after the checks.

    >>> @dataclass(frozen=True)
    ... @checked("ablation")
    ... class Blur:
    ...     sigma: Annotated[float, number(above=0, most=100)] = 2.0
    >>> Blur(-1)
    Traceback (most recent call last):
    ValueError: ablation.sigma=-1: expected a number above 0 and at most 100

    Args:
        prefix: of the field names on the command line.
    """

    def decorate(cls: C) -> C:
        after = cls.__dict__.get("__post_init__")

        @functools.cache
        def checks() -> dict[str, Allowed]:
            hints = get_type_hints(cls, include_extras=True)
            found = {name: _allowed(hint) for name, hint in hints.items()}
            return {name: allowed for name, allowed in found.items() if allowed is not None}

        def check(self: Any) -> None:
            for name, allowed in checks().items():
                allowed.require(f"{prefix}.{name}", getattr(self, name))
            if after is not None:
                after(self)

        cls.__post_init__ = check  # type: ignore[attr-defined]
        return cls

    return decorate


def _allowed(hint: Any) -> Allowed | None:
    """The values that an annotation allows; None if it declares none."""
    if get_origin(hint) is Annotated:
        return next((extra for extra in hint.__metadata__ if isinstance(extra, Allowed)), None)
    if get_origin(hint) is Literal:
        return one_of(get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        parts = [part for part in get_args(hint) if part is not NoneType]
        inner = _allowed(parts[0]) if len(parts) == 1 else None
        if inner is None or len(parts) == len(get_args(hint)):
            return inner
        expected = f"{inner.expected}, or null"
        return Allowed(lambda value: value is None or inner.holds(value), expected)
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _digits(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"
