"""Files of `torch.save`, inspected before torch reads them: nothing unfolds, nothing is called.

A small file can ask for any amount of memory: by compression, by data that it lacks, by a call that
makes many bytes out of one, by one container held many times. The pickle in the file is therefore
followed step by step without making its objects, and only what `torch.save` writes of dense tensors
and plain containers is accepted. Memory is then bounded by the size of the file.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import IO, Any

import torch

# torch.save does not compress, and weights hardly shrink if someone else does.
_MAX_RATIO = 4
#: Steps of a pickle; one of ResNet-152 with its optimizer takes 60,000.
_MAX_STEPS = 2_000_000
#: Objects and characters, each counted as often as it is reached.
_MAX_CONTENT = 50_000_000
#: Containers within containers.
_MAX_DEPTH = 100

_ITEM_SIZES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1,
    "Byte": 1, "Bool": 1, "ComplexDouble": 16, "ComplexFloat": 8,
}  # fmt: skip
_BYTES = ("torch.storage.UntypedStorage", "torch.UntypedStorage")
#: Functions that make a tensor, and how many arguments may follow storage, offset and shape.
_REBUILDS = {
    "torch._utils._rebuild_tensor": (0,),
    "torch._utils._rebuild_tensor_v2": (2,),
    "torch._utils._rebuild_tensor_v3": (3,),
}
_CONTAINERS = {"collections.OrderedDict", "collections.Counter", "builtins.set", "torch.Size"}
_VALUES = {
    "builtins.complex", "builtins.bytearray", "_codecs.encode", "torch.device",
    "torch.serialization._get_layout",
}  # fmt: skip
_UNUSUAL = {
    "torch._utils._rebuild_meta_tensor_no_storage": "only a shape",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_qtensor": "quantised",
}


class RefusedError(ValueError):
    """What is wrong with a file, as it follows its name in a message."""


def inspect_zip(file: IO[bytes], size: int) -> None:
    """Refuse a zip file that torch would read in another way than it was inspected, or that grows.

    Args:
        file: open; its position changes.
        size: of the file in bytes.

    Raises:
        RefusedError: it may grow, or is none of torch.save.
        Exception: of any class, where the file is damaged.
    """
    members = _list_members(file, size)
    total = sum(member.file_size for member in members)
    if total > _MAX_RATIO * size:
        raise RefusedError(
            f"refused, because its {size:,} bytes decompress to {total:,}, which weights do not. "
            "Ask its author for an uncompressed file"
        )
    names = {member.filename.partition("/")[2]: member for member in members}
    if "constants.pkl" in names:
        raise RefusedError(
            "is a TorchScript archive, which holds code; save its weights where it comes from: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if "data.pkl" not in names:
        found = ", ".join(member.filename for member in members[:3])
        raise RefusedError(f"is a zip file, but none of torch.save: it holds {found[:200]}")
    with zipfile.ZipFile(file) as archive:
        content = archive.read(names["data.pkl"])
    sizes = {
        name.removeprefix("data/"): member.file_size
        for name, member in names.items()
        if name.startswith("data/")
    }
    _Pickle(BytesIO(content), total, sizes).follow()


def _list_members(file: IO[bytes], size: int) -> list[zipfile.ZipInfo]:
    """Members of a zip file, where Python's reader and torch's cannot differ."""
    file.seek(max(0, size - 98))
    end = file.read(98)
    last, mark = end[-22:], end[:-22]
    if len(last) < 22 or not last.startswith(b"PK\5\6") or last[-2:] != b"\0\0":
        raise ValueError("no zip directory at its end")
    count, length, start = struct.unpack("<HII", last[10:20])
    place = size - 22
    if mark[-20:].startswith(b"PK\6\7"):  # of a large file, or one of torch.save
        place -= 20 + 56
        count, length, start = struct.unpack("<QQQ", mark[32:56]) if len(mark) == 76 else (0, 0, 0)
        if not mark.startswith(b"PK\6\6") or struct.unpack("<Q", mark[-12:-4])[0] != place:
            raise RefusedError("its zip directory is damaged, or forged")
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    names = {member.filename.lower() for member in members}
    plain = all(
        not member.flag_bits & 1
        and member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        and (member.compress_type or member.compress_size == member.file_size)
        and _count_long_sizes(member.extra) <= 1
        and member.header_offset + member.compress_size <= start
        for member in members
    )
    if start + length != place or not len(names) == len(members) == count or not plain:
        raise RefusedError("its zip directory is damaged, or forged")
    folders = {member.filename.partition("/")[0] for member in members}
    if len(folders) > 1:
        found = ", ".join(sorted(folders)[:3])
        raise RefusedError(f"is a zip file, but none of torch.save: it holds {found[:200]}")
    return members


def _count_long_sizes(extra: bytes) -> int:
    """Number of fields with sizes above four bytes; readers differ where there are several."""
    found = 0
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        found += kind == 1
        extra = extra[4 + length :]
    return found


def inspect_pickles(file: IO[bytes], size: int) -> None:
    """Refuse a file of torch before 1.6 (several pickles, then the data) that grows.

    Args:
        file: open, at its start; its position changes.
        size: of the file in bytes.

    Raises:
        RefusedError: it may grow, or hold more than tensors and plain containers.
        Exception: of any class, where the file is damaged.
    """
    if _Pickle(file, size).follow() != 0x1950A86A20F9469CFC6C:
        raise ValueError("it lacks the first bytes of a file of torch")
    for _ in range(4):  # version, machine, content, order of the data
        _Pickle(file, size).follow()


class _Name(str):
    """Name of a class or function."""


class _Box:
    """A container or an object.

    Attributes:
        kind: what it is.
        size: number of objects and characters in it, each counted as often as it is reached.
        depth: of containers in it.
        keys: of a dictionary that are text.
    """

    def __init__(self, kind: str, items: Iterable[Any] = ()) -> None:
        self.kind, self.size, self.depth = kind, 1, 1
        self.keys: list[str] = []
        self.closed = False
        self.add(items)

    def add(self, items: Iterable[Any]) -> None:
        for item in items:
            self.size += _size(item)
            self.depth = max(self.depth, 1 + _depth(item))
            if isinstance(item, _Box):
                item.closed = True  # torch.save fills a container before it puts it into another
        if self.closed:
            raise RefusedError("refused, because a container in it contains itself")
        if self.depth > _MAX_DEPTH:
            raise RefusedError(f"refused, because its containers are nested over {_MAX_DEPTH} deep")
        if self.size > _MAX_CONTENT:
            raise RefusedError("refused, because it repeats the same content millions of times")


class _Tuple(tuple[Any, ...]):
    """A tuple, with what `_Box` knows of a container."""

    box: _Box


def _make_tuple(items: Iterable[Any]) -> _Tuple:
    made = _Tuple(items)
    made.box = _Box("tuple", made)
    return made


def _size(item: object) -> int:
    if isinstance(item, _Tuple):
        return item.box.size
    if isinstance(item, _Box):
        return item.size
    return 1 + len(item) if isinstance(item, str | bytes) else 1


def _depth(item: object) -> int:
    box = item.box if isinstance(item, _Tuple) else item
    return box.depth if isinstance(box, _Box) else 0


class _Pickle:
    """A pickle that is followed without making its objects.

    Args:
        file: at the start of the pickle; afterwards behind its end.
        limit: bytes that all tensors may take.
        sizes: bytes of each storage; None: not known.
    """

    def __init__(self, file: IO[bytes], limit: int, sizes: dict[str, int] | None = None) -> None:
        self.file, self.limit, self.sizes = file, limit, sizes
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: set[tuple[Any, ...]] = set()
        self.bytes = self.copied = 0

    def follow(self) -> Any:
        """The outermost object: a number or text as it is, else a stand-in.

        Raises:
            RefusedError: it may grow, or hold more than tensors and plain containers.
            Exception: of any class, where the pickle is damaged.
        """
        for step, (operation, value, _) in enumerate(pickletools.genops(self.file)):
            if step > _MAX_STEPS:
                raise RefusedError(f"refused, because it has over {_MAX_STEPS:,} parts")
            self._take(operation.name, value)
        return self.stack.pop()

    def _take(self, operation: str, value: Any) -> None:
        stack = self.stack
        match operation:
            case "PROTO" | "STOP":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(None if operation == "NONE" else operation == "NEWTRUE")
            case (
                "BININT" | "BININT1" | "BININT2" | "BINFLOAT" | "LONG1" | "BINUNICODE"
                | "SHORT_BINSTRING"
            ):  # fmt: skip
                stack.append(value)
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append(_Box(operation.removeprefix("EMPTY_").lower()))
            case "MARK":
                self.marks.append(stack)
                self.stack = []
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = 0 if operation == "EMPTY_TUPLE" else int(operation[-1])
                items = [stack.pop() for _ in range(count)][::-1]
                stack.append(_make_tuple(items))
            case "TUPLE":
                items = self._pop_mark()
                self.stack.append(_make_tuple(items))
            case "APPEND" | "SETITEM":
                items = [stack.pop() for _ in range(1 + (operation == "SETITEM"))][::-1]
                self._fill(items, operation == "SETITEM")
            case "APPENDS" | "SETITEMS":
                self._fill(self._pop_mark(), operation == "SETITEMS")
            case "BINPUT" | "LONG_BINPUT":
                self.memo[value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[value])
            case "GLOBAL":
                stack.append(_name(value))
            case "BINPERSID":
                stack.append(self._find_storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "NEWOBJ":
                arguments, kind = stack.pop(), stack.pop()
                if kind not in _CONTAINERS or arguments:
                    raise _names(kind)
                stack.append(_Box(kind))
            case "BUILD":
                state, box = stack.pop(), stack[-1]
                # Versions of layers; other attributes would replace methods.
                kinds = (box.kind, state.kind)
                if kinds != ("collections.OrderedDict", "dict") or state.keys != ["_metadata"]:
                    raise RefusedError("refused, because it changes attributes of its containers")
                box.add([state])
            case _:
                raise RefusedError(
                    "is a pickle, but not as torch.save writes it. Save the weights alone: "
                    "torch.save(network.state_dict(), FILE)"
                )

    def _pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _fill(self, items: Sequence[Any], pairs: bool) -> None:
        box = self.stack[-1]
        if box.kind not in (
            ("dict", "collections.OrderedDict", "collections.Counter") if pairs else ("list",)
        ):
            raise ValueError("pairs outside of a dictionary")
        if pairs:
            for key in items[::2]:
                if isinstance(key, int) and abs(key) >= 1 << 63:  # crafted to have equal hashes
                    raise RefusedError("refused, because a key in it is a number of many digits")
                if isinstance(key, str):
                    box.keys.append(key)
        box.add(items)

    def _find_storage(self, identity: Any) -> tuple[int, int]:
        """(bytes, bytes of a number) of a storage."""
        _, kind, key, _, count, *view = identity
        start, length = 0, count
        if view and view[0] is not None:  # in old files
            _, start, length = view[0]
        if not all(type(n) is int for n in (start, length, count)) or start + length > count:
            raise ValueError("a tensor without data")
        width = 1
        if kind not in _BYTES:
            name = kind.rpartition(".")[2].removesuffix("Storage")
            if name.startswith(("QInt", "QUInt")):
                raise _unusual("quantised")
            width = _ITEM_SIZES[name]
        size = count * width
        if (key, kind, count) not in self.storages:
            self.storages.add((key, kind, count))
            self.bytes += size
            if min(start, length, count) < 0 or (self.sizes and size > self.sizes[key]):
                raise RefusedError("is damaged, or forged: a tensor has less data than it needs")
            if self.bytes > self.limit:
                raise RefusedError(
                    f"is cut short, or forged: its tensors take {self.bytes:,} bytes, and it holds "
                    f"{self.limit:,}"
                )
        return length * width, width

    def _call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if not isinstance(function, _Name):
            raise ValueError("a call of nothing")
        if function in _UNUSUAL:
            raise _unusual(_UNUSUAL[function])
        if function in _REBUILDS:
            return self._rebuild(function, arguments)
        if function == "torch._utils._rebuild_parameter":
            if not (isinstance(arguments[0], _Box) and arguments[0].kind == "tensor"):
                raise ValueError("a parameter without a tensor")
            return arguments[0]
        if function not in _CONTAINERS | _VALUES:
            raise _names(function)
        self.copied += sum(map(_size, arguments))
        if self.copied > _MAX_CONTENT:
            raise RefusedError("refused, because it repeats the same content millions of times")
        if function == "_codecs.encode" and arguments[1:] not in (("latin1",), ("latin-1",)):
            raise _names(function)
        if function == "builtins.bytearray" and any(isinstance(a, int) for a in arguments):
            raise RefusedError("refused, because it asks for memory without holding data")
        return _Box(function, arguments)

    def _rebuild(self, function: str, arguments: tuple[Any, ...]) -> _Box:
        (size, width), offset, shape, strides, *rest = arguments
        # Whether gradients are needed, and an empty list of functions to call with them.
        if (
            len(rest) not in _REBUILDS[function]
            or any(map(_depth, rest[:1]))
            or (len(rest) > 1 and rest[1] is not None and _size(rest[1]) > 1)
        ):
            raise RefusedError("refused, because its tensors have attributes; save copies of them")
        if function.endswith("v3"):
            name = arguments[6].removeprefix("torch.")
            width = getattr(torch, name).itemsize
        numbers = [offset, *shape, *strides]
        if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor of an impossible shape")
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if all(shape) and (last + 1) * width > size:
            raise RefusedError("is damaged, or forged: a tensor lies outside of its data")
        return _Box("tensor")


def _name(text: str) -> _Name:
    module, _, name = text.partition(" ")
    return _Name(f"{'builtins' if module == '__builtin__' else module}.{name}")


def _names(what: Any) -> RefusedError:
    name = str(what).removeprefix("builtins.")[:100]
    return RefusedError(
        f"refused, because it contains more than tensors and plain containers: it names {name}, "
        "which could run code. Ask its author for a bare state_dict: "
        "torch.save(network.state_dict(), FILE)"
    )


def _unusual(kind: str) -> RefusedError:
    return RefusedError(f"a tensor in it is {kind}; expected dense tensors of real numbers")
