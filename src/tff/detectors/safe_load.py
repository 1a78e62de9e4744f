"""Checkpoint files read without executing code from them."""

from __future__ import annotations

import hashlib
import pickle
import re
import stat
import string
import struct
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors

from tff.detectors.torch_file import RefusedError, inspect_pickles, inspect_zip
from tff.safe_text import make_printable

_LFS = b"version https://git-lfs"
_PYTORCH = "save the weights from PyTorch: torch.save(network.state_dict(), FILE)"
_PACKED = "unpack it first"
#: Files of other kinds, by what is at a position: what they are, and what to do.
_OTHERS = (
    (0, b"\x1f\x8b", "a gzip archive", _PACKED),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _PACKED),
    (0, b"\xfd7zXZ\0", "an xz archive", _PACKED),
    (0, b"BZh", "a bzip2 archive", _PACKED),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _PACKED),
    (0, b"Rar!", "a rar archive", _PACKED),
    (257, b"ustar", "a tar archive", f"{_PACKED}; if torch wrote it (before 0.2), save it again"),
    (0, b"\x89HDF\r\n", "an HDF5 file, as of Keras or TensorFlow", _PYTORCH),
    (4, b"TFL3", "a TensorFlow Lite file", _PYTORCH),
    (0, b"GGUF", "a GGUF file", _PYTORCH),
    (0, b"\x93NUMPY", "an array of NumPy", _PYTORCH),
    (0, b"\x89PNG", "an image (PNG)", "name the file of the weights"),
    (0, b"\xff\xd8\xff", "an image (JPEG)", "name the file of the weights"),
    (0, b"%PDF", "a PDF document", "name the file of the weights"),
)
# Protocol buffers: ONNX starts with its version and its producer, TensorFlow with other fields.
_ONNX = re.compile(rb"\x08[\x01-\x20](?:\x12.[\w.-]|\x1a|\x22|\x3a)", re.S)
_TENSORFLOW = re.compile(
    rb"\x08\x01\x12.{1,5}\n|\n.{1,3}\n.{1,80}\x12.(?:Placeholder|Const|NoOp|VarHandleOp)", re.S
)
#: Bytes of the header of a safetensors file; one of ResNet-152 takes 60,000.
_MAX_HEADER = 1 << 24
_PRINTABLE = set(string.printable.encode())
# A safetensors file starts with the length of its header in eight bytes, the upper four being 0.
_SAFETENSORS = b"\0\0\0\0{"


def read(path: Path | str, mapped: bool = False) -> dict[str, Any]:
    """Content of a checkpoint file: tensors and plain containers only.

    Args:
        path: a file of `torch.save`, of any age, or of safetensors; `~` is the home folder.
        mapped: leave the tensors on the disk; files of torch before 1.6 do not allow it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no regular file, another format, truncated, or a pickle that contains code or
            asks for more memory than the file holds.
    """
    with _open(path) as file:
        return _parse(file, Path(path).expanduser(), mapped)


def read_with_sha256(path: Path | str) -> tuple[dict[str, Any], str]:
    """Result of `read`, and the SHA-256 of the file, both from one open file."""
    with _open(path) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return _parse(file, Path(path).expanduser()), sha256


def _open(path: Path | str) -> BufferedReader:
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"checkpoint {path}: is a folder; name the file inside it")
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: an impossible name
        raise FileNotFoundError(f"checkpoint {path}: no such file") from None
    if not stat.S_ISREG(kind):  # opening a pipe would wait for ever
        raise ValueError(f"checkpoint {path}: is not a regular file; name a file of weights")
    return path.open("rb")


def _parse(file: BufferedReader, path: Path, mapped: bool = False) -> dict[str, Any]:
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(512)
    try:
        _refuse_others(start)
        if start.startswith(b"PK\3\4"):
            inspect_zip(file, size)
        elif path.suffix == ".safetensors" or start[4:9] == _SAFETENSORS:
            _inspect_safetensors(start, size)
            file.seek(0)
            return dict(load_safetensors(file.read()))
        else:
            file.seek(0)
            inspect_pickles(file, size)
        file.seek(0)
        source = path if mapped else file
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except RefusedError as error:
        raise ValueError(f"checkpoint {path}: {make_printable(str(error))}") from None
    except Exception as error:  # a damaged file lets the readers raise nearly anything
        raise ValueError(f"checkpoint {path}: {_reason(error, path)}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"checkpoint {path}: expected a dictionary, found {type(content).__name__}"
        )
    return content


def _refuse_others(start: bytes) -> None:
    """Refuse files of other formats, by their first bytes."""
    if not start:
        raise RefusedError("is empty (0 bytes)")
    if start.startswith(_LFS):
        raise RefusedError("is a Git LFS pointer, not the weights; fetch them with `git lfs pull`")
    for position, mark, kind, advice in _OTHERS:
        if start[position:].startswith(mark):
            raise RefusedError(f"is {kind}, not of weights; {advice}")
    if len(start) > 8 and set(start) <= _PRINTABLE:
        line = start.decode().strip().splitlines() or [""]
        raise RefusedError(f"is a text file ({line[0][:60]!r}...); expected a file of weights")
    for pattern, kind in ((_TENSORFLOW, "TensorFlow"), (_ONNX, "ONNX")):
        if pattern.match(start):
            raise RefusedError(f"is a file of {kind}; {_PYTORCH}")


def _inspect_safetensors(start: bytes, size: int) -> None:
    """Refuse a header of impossible length; the library checks everything else in it."""
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else size
    if length > min(size - 8, _MAX_HEADER):
        raise RefusedError("is no readable safetensors file: cut short, or its header is too long")


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
