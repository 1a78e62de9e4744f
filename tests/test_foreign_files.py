"""Files that somebody else may have made: opened only if they are regular, read within bounds."""

import os
import socket

import pytest

from tff.atomic import is_locked, lock
from tff.foreign_files import open_regular, read_file, read_json, read_yaml

KINDS = {"pipe": "a pipe", "socket": "a socket", "folder": "a folder", "zero": "a device"}


def put(kind, path):
    """Something else in place of a file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.chdir(path.parent)  # its path may have only 108 bytes
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_files_is_opened(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = put(kind, tmp_path / "odd")
    for read in (open_regular, read_json, read_yaml, lambda path: open_regular(path, "ab")):
        with pytest.raises(ValueError, match=rf"odd: is {KINDS[kind]}, not a file; remove it"):
            read(path)
    with pytest.raises(ValueError, match=rf"odd: is {KINDS[kind]}, not a file"), lock(path):
        pass
    assert not is_locked(path)


def test_a_file_is_opened_and_made(tmp_path):
    path = tmp_path / "new"
    with open_regular(path, "ab") as file:
        file.write(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(ValueError, match=r"new: has more than 4 bytes"):
        read_file(path, 4)
    with pytest.raises(FileNotFoundError, match="gone"):
        read_file(tmp_path / "gone", 1)


JSON = {
    "": "Expecting value",
    "[" * 100_000: "recursion",
    '{"a":' * 100_000: "recursion",
    "9" * 5000: r"99999999999999999999\.\.\. is too large",
    '{"a": -9223372036854775809}': "is too large",
    "\udcff": "invalid start byte",
}


@pytest.mark.parametrize("text", JSON, ids=lambda text: text[:8])
def test_json_that_cannot_be_read_is_named(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=rf"a\.json: cannot be read as JSON \(.*{JSON[text]}"):
        read_json(path)


YAML = {
    "a: 1": "its last line has no end",
    "- " * 100_000: "nested more than 64 deep",
    "[" * 100_000: "nested more than 64 deep",
    "a: &a [1]\nb: *a": "refers to parts of itself",
    "!!python/object/apply:os.system [ls]": "could not determine a constructor",
    "!!python/object/apply:pathlib.PosixPath [/etc]": "could not determine a constructor",
    "!!int ''": "",
    "!!timestamp x": "",
    f"a: {'9' * 5000}": "",
    "? [1]\n: 2": "unhashable key",
    "a: 1\n---\nb: 2": "single document",
}


@pytest.mark.parametrize("text", YAML, ids=lambda text: text[:24])
def test_yaml_that_cannot_be_read_is_named_in_one_line(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text if text == "a: 1" else f"{text}\n")
    with pytest.raises(ValueError, match=rf"a\.yaml: cannot be .* settings \(.*{YAML[text]}.*\)$"):
        read_yaml(path)


def test_references_are_not_resolved_and_types_are_those_of_omegaconf(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: ${oc.env:HOME}\nb: 1e-3\nc: 2026-01-01\nd: [null, true, 0x10]\n")
    assert read_yaml(path) == {
        "a": "${oc.env:HOME}", "b": 0.001, "c": "2026-01-01", "d": [None, True, 16]
    }  # fmt: skip
