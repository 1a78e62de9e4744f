from __future__ import annotations

import os
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tff.detectors.checkpoint import load
from tff.detectors.safe_load import read
from tff.detectors.torchvision_models import torchvision_model

CONTENT = {"model": {"a": torch.arange(20_000.0), "b": torch.zeros(3, 4)}, "total_steps": 7}


def save(content: Any, path: Path, form: str) -> None:
    if form == "safetensors":
        save_file(content["model"], path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("zip", "a.pth"),
        ("pickle", "a.pth"),
        ("safetensors", "a.pth"),
        ("safetensors", "a.safetensors"),
    ],
)
def test_all_formats_are_read(form, name, tmp_path):
    save(CONTENT, tmp_path / name, form)
    found = read(str(tmp_path / name))
    assert torch.equal(found.get("model", found)["a"], CONTENT["model"]["a"])


@pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
def test_truncated_files_are_refused(form, tmp_path):
    path = tmp_path / ("short.safetensors" if form == "safetensors" else "short.pth")
    save(CONTENT, path, form)
    whole = path.read_bytes()
    for kept in [*range(0, 900, 13), 40_000, 65_536, len(whole) - 100, len(whole) - 1]:
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"^checkpoint .*short\.") as caught:
            read(path)
        assert "weights_only" not in str(caught.value)  # no advice to run what it holds
        assert kept or "is empty (0 bytes)" in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
def test_damaged_files_raise_clear_errors_only(form, tmp_path):
    path = tmp_path / "damaged.pth"
    save(CONTENT, path, form)
    whole = path.read_bytes()
    random = torch.Generator().manual_seed(0)
    for place in torch.randint(0, 600, (60,), generator=random).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read(path)
        except ValueError as error:
            assert str(error).startswith(f"checkpoint {path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 94370000\n",
            "is a Git LFS pointer.*git lfs pull",
        ),
        (b"<!DOCTYPE html>\n<html>404</html>", r"is a text file \('<!DOCTYPE html>'"),
        (b"cos\nsystem\n(S'true'\ntR.", "is a text file"),
        (b"\x00" * 100, "not a readable checkpoint"),
    ],
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_other_files_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    for door in (read, load, lambda path: torchvision_model("resnet18", str(path))):
        with pytest.raises(ValueError, match=message):
            door(tmp_path / name)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt: no such file"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(ValueError, match="is a folder; name the file inside"):
        load(tmp_path)


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), "text"])
def test_content_must_be_a_dictionary(content, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="expected a dictionary, found"):
        load(tmp_path / "a.ckpt")


class Payload:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.witness}'",)


def write_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("writer", [torch.save, write_pickle])
def test_code_does_not_run(writer, tmp_path):
    path, witness = tmp_path / "evil.ckpt", tmp_path / "ran"
    content = {"model": {"conv1.weight": torch.zeros(1)}, "extra": Payload(witness)}
    writer(content, path)
    for door in (load, lambda path: torchvision_model("resnet18", str(path))):
        with pytest.raises(ValueError, match=r"evil\.ckpt: refused, because .* it names "):
            door(path)
    assert not witness.exists()
    pickle.loads(pickle.dumps(content))  # the payload itself works
    assert witness.exists()


def test_error_names_what_could_run_code(tmp_path):
    torch.save({"model": {}, "arguments": Namespace(lr=1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"it names argparse\.Namespace, which"):
        read(tmp_path / "a.pth")
