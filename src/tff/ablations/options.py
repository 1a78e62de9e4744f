"""Options of ablations, checked before the first image."""

from __future__ import annotations

import math
from typing import Any


def above_zero(name: str, value: Any, most: float) -> None:
    """A number above 0 and at most `most`.

    Args:
        name: of the option, for messages.

    Raises:
        ValueError: it is no number or outside of the range.
    """
    number = _number(name, value)
    if number <= 0:
        raise ValueError(f"ablation.{name}={value}: must be positive, at most {most:g}")
    if number > most:
        raise ValueError(f"ablation.{name}={value}: must be at most {most:g}")


def between(name: str, value: Any, least: float, most: float) -> None:
    """A number from `least` to `most`, both included.

    Raises:
        ValueError: it is no number or outside of the range.
    """
    if not least <= _number(name, value) <= most:
        raise ValueError(f"ablation.{name}={value}: must be between {least:g} and {most:g}")


def whole(name: str, value: Any, least: int, most: int) -> None:
    """A whole number from `least` to `most`, both included.

    Raises:
        ValueError: it is no whole number or outside of the range.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        limits = f"a whole number between {least} and {most}"
        raise ValueError(f"ablation.{name}={value}: must be {limits}")


def one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    """One of a few words.

    Raises:
        ValueError: it is none of them.
    """
    if value not in known:
        raise ValueError(f"ablation.{name}={value}: unknown; there are {', '.join(known)}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"ablation.{name}={value}: must be a number")
    return value
