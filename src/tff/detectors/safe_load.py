"""Checkpoint files read without executing code from them."""

from __future__ import annotations

import hashlib
import pickle
import re
import string
import zipfile
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors

from tff.safe_text import make_printable

_LFS = b"version https://git-lfs"
# torch.save does not compress, and weights hardly shrink if someone else does.
_MAX_RATIO = 4
_PRINTABLE = set(string.printable.encode())
# A safetensors file starts with the length of its header in eight bytes, the upper four being 0.
_SAFETENSORS = b"\0\0\0\0{"


def read(path: Path | str) -> dict[str, Any]:
    """Content of a checkpoint file: tensors and plain containers only.

    Args:
        path: a file of `torch.save`, of any age, or of safetensors; `~` is the home folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, text, truncated, not a checkpoint, or a pickle that contains code.
    """
    with _open(path) as file:
        return _parse(file, Path(path).expanduser())


def read_with_sha256(path: Path | str) -> tuple[dict[str, Any], str]:
    """Result of `read`, and the SHA-256 of the file, both from one open file."""
    with _open(path) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return _parse(file, Path(path).expanduser()), sha256


def _open(path: Path | str) -> BufferedReader:
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"checkpoint {path}: is a folder; name the file inside it")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    return path.open("rb")


def _parse(file: BufferedReader, path: Path) -> dict[str, Any]:
    file.seek(0)
    start = file.read(512)
    _refuse_text(start, path)
    _refuse_bomb(file, path)
    file.seek(0)
    try:
        if path.suffix == ".safetensors" or start[4:9] == _SAFETENSORS:
            return dict(load_safetensors(file.read()))
        content = torch.load(file, map_location="cpu", weights_only=True)
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
            f"checkpoint {path}: is a Git LFS pointer, not the weights; fetch them with "
            "`git lfs pull`"
        )
    if len(start) > 8 and set(start) <= _PRINTABLE:
        line = start.decode().strip().splitlines() or [""]
        raise ValueError(
            f"checkpoint {path}: is a text file ({line[0][:60]!r}...); expected a file of weights"
        )


def _refuse_bomb(file: BufferedReader, path: Path) -> None:
    """Refuse a zip file that, by its directory, decompresses to many times its size."""
    try:
        with zipfile.ZipFile(file) as archive:
            decompressed = sum(member.file_size for member in archive.infolist())
    except Exception:  # not a zip file, or damaged: torch has the better message
        return
    size = path.stat().st_size
    if decompressed > _MAX_RATIO * size:
        raise ValueError(
            f"checkpoint {path}: refused, because its {size:,} bytes decompress to "
            f"{decompressed:,}, which weights do not. Ask its author for an uncompressed file"
        )


def _reason(error: Exception, path: Path) -> str:
    """Why a file could not be read, in plain words."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and named:
        return (
            "refused, because it contains more than tensors and plain containers: it names "
            f"{named[1].rstrip('.')}, which could run code. Ask its author for a bare state_dict"
        )
    first = (str(error).strip().splitlines() or [""])[0].split(". ")[0][:160]
    if isinstance(error, pickle.UnpicklingError):
        first = ""  # torch's message advises to load it with code
    cause = ": ".join(text for text in (type(error).__name__, first) if text)
    size = path.stat().st_size
    return f"not a readable checkpoint, perhaps truncated ({size:,} bytes; {make_printable(cause)})"
