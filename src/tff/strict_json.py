"""JSON as the standard defines it: null for numbers that are not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, **options: Any) -> str:
    """Text of a value in JSON; Python's own writes NaN and Infinity, which few programs read.

    Args:
        value: containers, arrays, numbers, texts; anything else is written as its text.
        options: of `json.dumps`, such as `indent`.
    """
    return json.dumps(to_json(value), allow_nan=False, **options)


def to_json(value: Any) -> Any:
    """Plain containers for strict JSON; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and torch
        return to_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
