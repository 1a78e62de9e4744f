"""Errors of the machine become sentences."""

import errno
from pathlib import Path

import pytest
from tests.helpers import tiny

from tff.atomic import name_file_in_errors
from tff.cli.run_folder import require_writable
from tff.data.folder import Folder
from tff.data.loaders import EvaluationBatches, loader
from tff.errors import explain, readable_errors


def test_the_file_is_named():
    error = OSError(errno.ENOSPC, "x", "a/b.ckpt")
    assert explain(error, "out").startswith("a/b.ckpt: the disk is full; make room")
    assert explain(OSError(errno.ENOSPC, "x"), "out").startswith("out: the disk is full")
    assert explain(OSError(errno.ENOSPC, "x")) == "[Errno 28] x"
    assert explain(OSError(errno.ECONNREFUSED, "refused"), "out") == "[Errno 111] refused"
    assert explain(FileNotFoundError("ckpt: no such file")) == "ckpt: no such file"
    assert explain(FileNotFoundError(2, "x", b"\xff")).endswith(": no such file or folder")


def test_other_errors_are_not_the_machine_s():
    assert explain(RuntimeError("shapes differ")) is None
    assert explain(ValueError("DataLoader worker (pid 1) is killed by signal: Killed. ")) is None


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Killed. ", "was killed (Killed)"),
        ("DataLoader worker (pid(s) 1, 2) exited unexpectedly", "was killed, perhaps"),
    ],
)
def test_a_worker_that_is_gone(text, by):
    assert by in explain(RuntimeError(text))


def test_writing_names_the_file_that_torch_does_not():
    with pytest.raises(OSError, match="No space") as caught, name_file_in_errors("x.ckpt"):
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 as torch does
    assert caught.value.filename == "x.ckpt"
    with pytest.raises(RuntimeError, match="other"), name_file_in_errors("x.ckpt"):
        raise RuntimeError("other")


def test_what_a_terminal_obeys_is_made_visible(capsys):
    with pytest.raises(SystemExit), readable_errors():
        raise FileNotFoundError(2, "x", "a\x1b[2Jb")
    told = capsys.readouterr().err
    assert "\x1b[2J" not in told
    assert r"a\x1b[2Jb: no such file or folder" in told


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_reads_alike_with_and_without_workers(tmp_path, workers):
    images = Folder(root=str(tiny.tree(tmp_path))).images("all")
    for path in Path(tmp_path).rglob("*.png"):
        path.write_bytes(b"no\nValueError: image")
    with pytest.raises(ValueError, match="damaged, or no image at all; repair or remove it") as got:
        list(loader(images, EvaluationBatches(images, 4), workers))
    assert str(got.value).startswith(f"{tmp_path}/")
    assert "\n" not in str(got.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["hydra.run.dir=FILE/x", "--help"],
        ["hydra.run.dir=${out}"],
        ["hydra.sweep.dir=FILE/x"],  # which is not that of a single run
        ['hydra.run.dir="NEW/a/b"'],
        ["seed=1"],
    ],
)
def test_nothing_is_made_by_asking(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    names = {"FILE": str(tmp_path / "file"), "NEW": str(tmp_path / "new")}
    for name, path in names.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    require_writable(arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "arguments",
    [["hydra.run.dir=FILE/x"], ["-m", 'hydra.sweep.dir="FILE"'], ["hydra.run.dir=FILE"]],
)
def test_a_file_where_a_folder_is_needed(arguments, tmp_path):
    (tmp_path / "file").touch()
    arguments = [argument.replace("FILE", str(tmp_path / "file")) for argument in arguments]
    with pytest.raises(SystemExit, match="is a file where a folder is needed"):
        require_writable(arguments)
