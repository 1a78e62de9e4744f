"""Malicious weight files without code: odd tensors, bombs, false headers."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision

from tff.detectors.checkpoint import load
from tff.detectors.safe_load import read
from tff.detectors.torchvision_models import torchvision_model


@pytest.fixture(scope="module")
def weights():
    return dict(torchvision.models.resnet18(num_classes=1).state_dict())


@pytest.mark.filterwarnings("ignore")  # torch deprecates some kinds of tensors
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.empty(1, 512, device="meta"), "only a shape"),
        (lambda: torch.zeros(1, 512).to_sparse(), "sparse"),
        (lambda: torch.zeros(1, 512, dtype=torch.complex64), "complex"),
        (lambda: torch.quantize_per_tensor(torch.zeros(1, 512), 1.0, 0, torch.qint8), "quantised"),
        (lambda: torch.empty(10**9, 10**9, device="meta"), "only a shape"),
        (lambda: torch.zeros(1).expand(10**6, 10**6), "does not fit|not weights of"),
    ],
)
def test_tensors_that_cannot_be_weights_are_refused(make, kind, weights, tmp_path):
    path = tmp_path / "odd.pth"
    torch.save(weights | {"fc.weight": make()}, path)
    for door in (load, lambda path: torchvision_model("resnet18", str(path))):
        with pytest.raises(ValueError, match=rf"odd\.pth: .*({kind})"):
            door(path)


def test_compressed_bomb_is_refused_before_decompression(tmp_path):
    torch.save({"a": torch.zeros(5_000_000)}, tmp_path / "plain.pth")
    bomb = tmp_path / "bomb.pth"
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for member in plain.infolist():
            file.writestr(member.filename, plain.read(member))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"bomb\.pth: refused, because its .* decompress to 20,"):
        load(bomb)
    assert read(tmp_path / "plain.pth")["a"].shape == (5_000_000,)


HEADERS = {
    "longer than the file": struct.pack("<Q", 10**15) + b"{",
    "nearly endless": struct.pack("<Q", 2**63 - 1) + b'{"a":1}',
    "no JSON": struct.pack("<Q", 8) + b"{]]]]]]]",
    "deep": struct.pack("<Q", 200_001) + b"{" + b"[" * 200_000,
    "outside": None,
    "overflowing": None,
    "an unknown type": None,
}


@pytest.mark.parametrize("what", HEADERS)
def test_malformed_safetensors_headers_are_refused(what, tmp_path):
    content = HEADERS[what]
    if content is None:
        entry = {
            "outside": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]},
            "overflowing": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]},
            "an unknown type": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]},
        }[what]
        header = json.dumps({"a": entry}).encode()
        content = struct.pack("<Q", len(header)) + header + b"\0\0\0\0"
    path = Path(tmp_path / "absurd.safetensors")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^checkpoint {re.escape(str(path))}: "):
        load(path)


def test_tensor_beyond_its_storage_is_refused(tmp_path):
    """The pickle of an otherwise valid file declares a tensor beyond the end of its storage."""
    torch.save({"a": torch.zeros(200)}, tmp_path / "plain.pth")
    evil = tmp_path / "evil.pth"
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(evil, "w") as file:
        for member in plain.infolist():
            data = plain.read(member)
            if member.filename.endswith("data.pkl"):
                assert data.count(b"K\xc8") == 2  # 200: of the storage, of the tensor
                data = data.replace(b"K\xc8", b"J\xff\xff\xff\x7f")
            file.writestr(member.filename, data)
    with pytest.raises(ValueError, match=r"evil\.pth: .* has less data than it needs"):
        read(evil)
