"""Small files that would take all memory, or all time, are refused before torch reads them."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tff.detectors.checkpoint import load
from tff.detectors.safe_load import read
from tff.detectors.torchvision_models import torchvision_model


def rezip(path: Path, method: int, **changes: bytes) -> None:
    """Write a file of torch.save again, with the content of some members changed."""
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    with zipfile.ZipFile(path, "w", method) as new:
        for name, content in members.items():
            new.writestr(name, changes.get(name.partition("/")[2].replace(".", "_"), content))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "x.pth"
    torch.save({"a": torch.arange(300.0)}, path)
    return path


def forge_zip(data: bytes, kind: str) -> bytes:
    """Change the directory of a deflated zip file so that readers may differ."""
    end = data.rindex(b"PK\5\6")
    start = struct.unpack("<I", data[end + 16 : end + 20])[0]
    entry, rest = start, bytearray(data)
    match kind:
        case "version":
            while rest[entry : entry + 4] == b"PK\1\2":
                rest[entry + 6 : entry + 8] = struct.pack("<H", 64)
                name, extra, note = struct.unpack("<HHH", rest[entry + 28 : entry + 34])
                entry += 46 + name + extra + note
        case "encrypted":
            rest[entry + 8] |= 1
        case "method":
            rest[entry + 10 : entry + 12] = struct.pack("<H", 12)
        case "behind":
            rest += b"\0" * 9
        case "comment":
            rest[-2:] = struct.pack("<H", 4)
            rest += b"note"
        case "second directory":
            rest += data[start:]
        case "count":
            rest[end + 8 : end + 12] = struct.pack("<HH", 1, 1)
        case "offset":
            rest[end + 16 : end + 20] = struct.pack("<I", start - 1)
        case "twice":
            body = data[start:end]
            total = len(body) * 2
            count = struct.unpack("<H", data[end + 8 : end + 10])[0] * 2
            rest = bytearray(data[:start] + body * 2 + data[end:])
            rest[-14:-6] = struct.pack("<HHI", count, count, total)
        case "long sizes":
            rest[end:end] = (
                b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, end - start, start)
                + b"PK\6\7" + struct.pack("<IQI", 0, 0, 1)
            )  # fmt: skip
    return bytes(rest)


@pytest.mark.parametrize(
    "kind",
    ["version", "encrypted", "method", "behind", "comment", "second directory", "count", "offset",
     "twice", "long sizes"],
)  # fmt: skip
def test_zip_files_that_readers_take_differently_are_refused(kind, plain):
    rezip(plain, zipfile.ZIP_DEFLATED, data_0=bytes(20_000_000))
    plain.write_bytes(forge_zip(plain.read_bytes(), kind))
    with pytest.raises(
        ValueError, match=r"x\.pth: (its zip directory is|not a readable)"
    ) as caught:
        read(plain)
    assert "PytorchStreamReader" not in str(caught.value)  # torch has not tried


@pytest.mark.parametrize("record", ["version", "byteorder", "_data/serialization_id", "data_pkl"])
def test_bombs_in_any_member_are_refused(record, plain):
    """Torch reads some of them before it reads the weights."""
    rezip(plain, zipfile.ZIP_DEFLATED, **{record: b"1" * 20_000_000})
    with pytest.raises(ValueError, match=r"refused, because its .* bytes decompress to 20,"):
        read(plain)


def test_weights_that_someone_has_compressed_are_read(plain):
    rezip(plain, zipfile.ZIP_DEFLATED)
    assert torch.equal(read(plain)["a"], torch.arange(300.0))


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuM\x2c\1tQ"  # 300 numbers
NOTHING = b"ccollections\nOrderedDict\n)R"


def tensor(shape: bytes, stride: bytes, rest: bytes = NOTHING) -> bytes:
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + STORAGE
        + b"K\0"
        + shape
        + stride
        + b"\x89"
        + (rest + b"tR")
    )


HUGE = b"J\xff\xff\xff\x7f"
WORDS = b"(" + b"X\1\0\0\0a" * 1000 + b"l"
#: Pickles of one value, and what is said of them.
PICKLES = {
    "bytes": (b"c__builtin__\nbytearray\n" + HUGE + b"\x85R", "without holding data"),
    "a tensor that is new": (b"ctorch\nTensor\n" + HUGE + b"\x85\x81", "names torch.Tensor"),
    "a tensor of old": (b"ctorch\nFloatTensor\n" + HUGE + b"\x85R", "names torch.FloatTensor"),
    "data that are new": (
        b"ctorch.storage\nUntypedStorage\n" + HUGE + b"\x85R", "names torch.storage"
    ),
    "outside of the data": (tensor(b"M\x2d\1\x85", b"K\1\x85"), "outside of its data"),
    "a step out of the data": (tensor(b"K\2\x85", b"M\x2c\1\x85"), "outside of its data"),
    "a negative step": (tensor(b"K\2\x85", b"J\xff\xff\xff\xff\x85"), "impossible shape"),
    "functions for gradients": (
        tensor(b"K\1\x85", b"K\1\x85", b"}K\0ctorch\nSize\ns"), "tensors have attributes"
    ),
    "attributes": (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\n"
        b"ctorch\nTensor\n)}tR", "names torch._tensor"
    ),
    "a method replaced": (
        NOTHING + b"}X\5\0\0\0itemsK\1sb", "changes attributes of its containers"
    ),
    "copies of one text": (
        b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\1" + b"(" + (
            b"c_codecs\nencode\nh\1X\6\0\0\0latin1\x86R" * 100
        ) + b"l", "no checkpoint|torch.save writes|millions"
    ),
    "copies of one set": (
        b"]q\1(" + b"K\1" * 10000 + b"e0"[:1] + b"q\2](" + (
            b"c__builtin__\nset\nh\2\x85R" * 6000
        ) + b"e", "same content millions of times"
    ),
    "lists of lists": (
        b"]q\0(" + b"K\1" * 10 + b"e" + b"".join(
            b"]q" + bytes([n]) + b"(" + b"h" + bytes([n - 1]) + (b"h" + bytes([n - 1])) * 9 + b"e"
            for n in range(1, 12)
        ), "same content millions of times"
    ),
    "a list in itself": (b"]q\1h\1a", "contains itself"),
    "a dictionary in itself": (b"}q\1K\1h\1s", "contains itself"),
    "deep lists": (b"]" * 100_000 + b"a" * 99_999, "nested over 100 deep"),
    "deep tuples": (b")" + b"\x85" * 100_000, "nested over 100 deep"),
    "equal hashes": (
        b"}(" + b"".join(
            b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"K\0" for k in range(9, 99)
        ) + b"u", "a number of many digits"
    ),
    "parts without end": (b"](" + b"K\1" * 2_000_100 + b"e", "has over 2,000,000 parts"),
    "a far place of the memo": (b"K\1r\xff\xff\xff\x7f", ""),
    "a long text that is missing": (b"X\xff\xff\xff\x7fa", "not a readable checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("what", PICKLES)
@pytest.mark.parametrize("old", [False, True])
def test_pickles_that_grow_are_refused(what, old, plain, little_memory):
    value, message = PICKLES[what]
    program = b"\x80\x02}X\1\0\0\0a" + value + b"s."
    if old:
        start = b"".join(
            pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {})
        )
        keys = pickle.dumps(["0"] if b"storage" in program else [], protocol=2)
        data = struct.pack("<Q", 300) + torch.arange(300.0).numpy().tobytes()
        program = program.replace(b"cpuM\x2c\1tQ", b"cpuM\x2c\1NtQ")
        plain.write_bytes(start + program + keys + data)
    else:
        rezip(plain, zipfile.ZIP_STORED, data_pkl=program)
    if not message:  # harmless
        read(plain)
        return
    with pytest.raises(ValueError, match=rf"^checkpoint .*x\.pth: .*({message})"):
        read(plain)


def test_an_old_file_that_asks_for_more_than_it_holds_is_refused(tmp_path, little_memory):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(200)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"K\xc8") == 2
    path.write_bytes(data.replace(b"K\xc8", b"J\xff\xff\xff\x7f"))
    with pytest.raises(ValueError, match=r"x\.pth: is cut short, or forged: its tensors take 8,"):
        read(path)


CONTENT = {
    "views": torch.arange(12.0).view(3, 4).t(),
    "part": torch.arange(12.0)[3:9],
    "empty": torch.zeros(0, 5),
    "scalar": torch.tensor(3),
    "types": [
        torch.zeros(2, dtype=t) for t in (torch.half, torch.bfloat16, torch.bool, torch.int8)
    ],
    "small": [torch.zeros(2, dtype=t) for t in (torch.float8_e4m3fn, torch.uint16)],
    "channels last": torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "parameter": nn.Parameter(torch.ones(2)),
    "layers": nn.BatchNorm2d(3).state_dict(),
    "text": "Grüße",
    "bytes": b"\0\xff",
    "numbers": [1, -5, 2**40, 2**70, 0.5, 1j, True, None],
    "others": ({1, 2}, torch.Size([1]), torch.float32, torch.device("cpu"), bytearray(b"1")),
    "ordered": OrderedDict(a=1),
    7: {"x": ()},
}


@pytest.mark.parametrize("new", [True, False])
def test_what_torch_saves_of_plain_content_is_read(new, tmp_path):
    content = dict(CONTENT)
    if not new:  # old files know fewer types
        del content["small"]
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
    for make in (torch.optim.Adam, torch.optim.SGD, torch.optim.LBFGS):
        optimizer = make(parameters, lr=0.1)
        sum(p.sum() for p in parameters).backward()
        optimizer.step(lambda: torch.ones(()))
        content[make.__name__] = optimizer.state_dict()
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=new)
    found = read(path)
    assert repr(found) == repr(content)
    assert found["layers"]._metadata == content["layers"]._metadata


def in_zip(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, b"x" * 100)

    return write


def in_tar(path: Path) -> None:
    torch.save({}, path)
    content = path.read_bytes()
    with tarfile.open(path, "w") as file:
        member = tarfile.TarInfo("weights.pth")
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))


def whole_network(path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(1, 1)), path)


def of(start: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(start + bytes(600))


OTHERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"a" * 900)), "gzip archive.*unpack it"),
    "tar": (in_tar, "tar archive.*unpack it"),
    "zip": (in_zip("weights/model.npy"), r"zip file, but none of torch\.save: it holds weights/"),
    "keras": (in_zip("model.weights.h5"), r"zip file, but none of torch\.save: it holds model"),
    "hdf5": (of(b"\x89HDF\r\n\x1a\n"), "HDF5.*Keras.*torch.save"),
    "onnx": (of(b"\x08\x08\x12\x07pytorch\x1a\x032.0"), "file of ONNX.*torch.save"),
    "tensorflow": (of(b"\x08\x01\x12\xd3\x11\n\xc0\x03"), "file of TensorFlow.*torch.save"),
    "numpy": (of(b"\x93NUMPY\1\0"), "array of NumPy"),
    "png": (of(b"\x89PNG\r\n\x1a\n"), r"image \(PNG\)"),
    "network": (whole_network, r"names torch\.nn\.modules.*torch\.save\(network\.state_dict"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_files_of_other_kinds_are_named(kind, tmp_path):
    path = tmp_path / "x.pth.tar"
    OTHERS[kind][0](path)
    for door in (load, lambda path: torchvision_model("resnet18", str(path))):
        with pytest.raises(ValueError, match=rf"x\.pth\.tar: .*{OTHERS[kind][1]}"):
            door(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe"])
def test_only_regular_files_are_opened(kind, tmp_path):
    """Opening a pipe would wait for ever."""
    path = tmp_path / "x.pth"
    if kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
        path = tmp_path / "pipe" if kind == "pipe" else path
    for door in (load, lambda path: torchvision_model("resnet18", str(path))):
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: is not a regular file"):
            door(path)
