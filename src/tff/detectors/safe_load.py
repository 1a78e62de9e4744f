"""Checkpoint files read without running code."""

from __future__ import annotations

import pickle
import re
import string
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tff.safe_text import make_printable

_LFS = b"version https://git-lfs"
# torch.save does not compress; weights hardly shrink if someone else does.
_MOST_UNFOLDED = 4
_PRINTABLE = set(string.printable.encode())
# Above a safetensors header stands its length in eight bytes, of which the upper four are 0.
_SAFETENSORS = b"\0\0\0\0{"


def read(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint file: tensors and plain containers only.

    Args:
        path: a file of `torch.save`, of any age, or of safetensors; `~` is the home folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, text, cut short, no checkpoint, or a pickle with code in it.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"checkpoint {path}: is a folder; expected a file, name the one inside")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    with path.open("rb") as file:
        start = file.read(512)
    _refuse_text(start, path)
    _refuse_bomb(path)
    try:
        if path.suffix == ".safetensors" or start[4:9] == _SAFETENSORS:
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file lets the readers raise nearly anything
        raise ValueError(f"checkpoint {path}: {_reason(error, path)}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"checkpoint {path}: expected a dictionary, found {type(content).__name__}"
        )
    return content


def _refuse_text(start: bytes, path: Path) -> None:
    if not start:
        raise ValueError(f"checkpoint {path}: is empty (0 bytes)")
    if start.startswith(_LFS):
        raise ValueError(
            f"checkpoint {path}: is a Git LFS pointer, a text that stands for the weights; fetch "
            "them with `git lfs pull`"
        )
    if len(start) > 8 and set(start) <= _PRINTABLE:
        line = start.decode().strip().splitlines() or [""]
        raise ValueError(
            f"checkpoint {path}: is a text file ({line[0][:60]!r}...), expected one of weights"
        )


def _refuse_bomb(path: Path) -> None:
    """Refuse a file that unfolds into many times its size, by what its directory says."""
    try:
        with zipfile.ZipFile(path) as file:
            unfolded = sum(member.file_size for member in file.infolist())
    except Exception:  # another form, or damaged: torch tells more exactly
        return
    size = path.stat().st_size
    if unfolded > _MOST_UNFOLDED * size:
        raise ValueError(
            f"checkpoint {path}: refused, because its {size:,} bytes unfold into {unfolded:,}; "
            "files of weights do not. Ask its author for one that is not compressed"
        )


def _reason(error: Exception, path: Path) -> str:
    """Why a file could not be read, in plain words."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and named:
        return (
            "refused, because it holds more than tensors and plain containers: it names "
            f"{named[1].rstrip('.')}, which could run code. Ask its author for a bare state_dict"
        )
    first = (str(error).strip().splitlines() or [""])[0].split(". ")[0][:160]
    if isinstance(error, pickle.UnpicklingError):
        first = ""  # torch's text advises to read it with code
    told = ": ".join(text for text in (type(error).__name__, first) if text)
    size = path.stat().st_size
    return f"not a readable checkpoint, perhaps cut short ({size:,} bytes; {make_printable(told)})"
