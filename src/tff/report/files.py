"""What programs read: names of files, values of strict JSON."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LONGEST = 200  # bytes; file systems take 255, with endings and prefixes
_MOST = 10_000  # names that differ only in what a file name may not hold


def file_name(name: str) -> str:
    """The name without what would lead out of the folder, hide the file or be too long."""
    safe = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "_"
    if len(safe.encode()) <= _LONGEST:
        return safe
    short = safe.encode()[:_LONGEST].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def free(folder: Path, analysis: str, name: str, ending: str) -> Path:
    """A path not taken yet: where two analyses use one name, the second bears its analysis."""
    names = [name, f"{analysis}-{name}", *(f"{analysis}-{name}-{n}" for n in range(2, _MOST))]
    paths = (folder / f"{file_name(one)}{ending}" for one in names)
    return next(path for path in paths if not path.exists())


def plain(value: Any) -> Any:
    """Only what strict JSON has; what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and torch
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
