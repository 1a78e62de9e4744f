"""The command: sets of a hub of our own and at plain addresses, killed at every step."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tff.atomic import lock
from tff.data.download import fetch as fetching
from tff.data.download.__main__ import main
from tff.data.download.extract import MARKER
from tff.data.download.fetch import LOCK, RECORD
from tff.data.download.sources import list_sources, load_source

BYTES = bytes(range(256)) * 400
SHA = hashlib.sha256(BYTES).hexdigest()
REPO, COMMIT = "sywang/CNNDetection", "f287cf3c3e92ca2e5451ce200bab8b6f5e0175b2"
VAL = f"datasets/{REPO}/resolve/{COMMIT}/progan_val.zip"

pytestmark = pytest.mark.usefixtures("disk")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def archive(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return stream.getvalue()


IMAGES = {
    f"progan_val/{name}/{label}/{n}.png": os.urandom(3000)
    for name in ("airplane", "cat") for label in ("0_real", "1_fake") for n in range(8)
}  # fmt: skip


@pytest.fixture
def val(server, tmp_path, monkeypatch):
    """The arguments that bring ForenSynths' validation set from our server."""
    monkeypatch.setenv("HF_ENDPOINT", server.url())
    server.add_repo(REPO, {"progan_val.zip": archive(**IMAGES)}, COMMIT)
    return ["forensynths", "split=val", f"to={tmp_path / 'it'}"]


def complete(folder):
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}
    return found == {name.removeprefix("progan_"): content for name, content in IMAGES.items()}


def error_of(arguments, capsys, **options):
    with pytest.raises(SystemExit) as end:
        main(arguments, **options)
    assert end.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def test_command(val, server, tmp_path, capsys, caplog):
    caplog.set_level("INFO", "tff")
    assert main(val) == 0
    folder = tmp_path / "it"
    assert complete(folder)
    assert capsys.readouterr().out == f"{folder / 'val'}\n"
    digest = hashlib.sha256(server.files[VAL]).hexdigest()
    assert "progan_val.zip: its SHA-256 is the published one" in caplog.text
    assert json.loads((folder / RECORD).read_text())["progan_val.zip"]["sha256"] == digest
    assert names(folder) == [RECORD, ".tff-download.lock", "val"]
    assert main(val) == 0
    assert len(server.ranges) == 1


def test_keep_archives(val, server, tmp_path):
    assert main([*val, "keep_archives=true"]) == 0
    assert (tmp_path / "it/progan_val.zip").read_bytes() == server.files[VAL]
    shutil.rmtree(tmp_path / "it/val")
    assert main([*val, "keep_archives=true"]) == 0
    assert complete(tmp_path / "it") and len(server.ranges) == 1
    assert main(val) == 0
    assert not (tmp_path / "it/progan_val.zip").exists()


def test_verified_file_is_not_read_again(val, server, tmp_path, monkeypatch):
    assert main([*val, "keep_archives=true"]) == 0
    shutil.rmtree(tmp_path / "it/val")
    monkeypatch.setattr(fetching, "verify", None)
    assert main([*val, "keep_archives=true"]) == 0
    assert complete(tmp_path / "it")


def test_archive_placed_by_hand(val, server, tmp_path):
    (tmp_path / "it").mkdir()
    (tmp_path / "it/progan_val.zip").write_bytes(server.files[VAL])
    assert main(val) == 0
    assert complete(tmp_path / "it") and server.ranges == []
    assert main(val) == 0
    assert (tmp_path / "it/progan_val.zip").exists()  # it is not ours to remove


@pytest.fixture
def train(server, tmp_path, monkeypatch):
    """The arguments that bring a training set: seven volumes of a 7z archive that holds a zip."""
    py7zr = pytest.importorskip("py7zr")
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w", filters=[{"id": py7zr.FILTER_COPY}]) as file:
        file.writestr(archive(**IMAGES), "progan_train.zip")
    size = -(-len(stream.getvalue()) // 7)
    volumes = {
        f"progan_train.7z.{n + 1:03d}": stream.getvalue()[n * size : (n + 1) * size]
        for n in range(7)
    }
    server.add_repo(REPO, volumes, COMMIT)
    monkeypatch.setenv("HF_ENDPOINT", server.url())
    return ["forensynths", "split=train", f"to={tmp_path / 'it'}"]


def start(arguments, before="pass"):
    """The command in a process of its own, with room on the disk."""
    code = (
        "import sys, collections; from huggingface_hub import constants;"
        "constants.DOWNLOAD_CHUNK_SIZE = 1000; from tff.data.download import extract;"
        "extract.shutil.disk_usage = lambda _: collections.namedtuple('u', 'free')(10**12);"
        f"from tff.data.download.__main__ import main; {before}; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, process):
    end = time.monotonic() + 30
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_while_it_downloads(val, server, tmp_path):
    server.plan = [{"pause": 0.02}, {"pause": 0.02}, {}]
    part = tmp_path / "it/progan_val.zip.part"
    for size in (20_000, 50_000):
        process = start(val)
        wait_for(lambda s=size: part.exists() and part.stat().st_size > s, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert server.files[VAL].startswith(part.read_bytes())
        assert not (tmp_path / "it/val").exists()
    assert main(val) == 0
    assert complete(tmp_path / "it")
    first, second, third = server.ranges
    assert first is None
    assert int(second[6:-1]) > 20_000 and int(third[6:-1]) > 50_000


STEPS = {
    "before it has its name": ("tff.data.download.transfer", "verify"),
    "before it is recorded": ("tff.data.download.fetch", "_add_to_record"),
    "before it is unpacked": ("tff.data.download.extract", "_extract"),
    "before the folder has its name": ("pathlib", "Path.rename"),
    "before the archive is removed": ("tff.data.download.fetch", "_remove_archives"),
}


def killed(step):
    module, name = STEPS[step]
    return f"import os, {module} as m; m.{name} = lambda *a, **k: os.kill(os.getpid(), 9)"


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step(val, server, tmp_path, step):
    process = start(val, killed(step))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "it/val").exists() == (step == "before the archive is removed")
    assert main(val) == 0
    assert complete(tmp_path / "it") and len(server.ranges) == 1
    assert names(tmp_path / "it") == [RECORD, ".tff-download.lock", "val"]


def test_volumes_of_7z_with_a_zip_inside(train, server, tmp_path):
    server.plan = [{}, {}, {"cut": 100}]
    assert main(train) == 0
    (tmp_path / "it/train").rename(tmp_path / "it/val")
    assert complete(tmp_path / "it") and len(server.ranges) == 8
    assert names(tmp_path / "it") == [RECORD, ".tff-download.lock", "val"]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["before it is unpacked", "before the archive is removed"])
def test_killed_between_7z_and_zip(train, server, tmp_path, step):
    process = start(train, killed(step))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert main(train) == 0
    (tmp_path / "it/train").rename(tmp_path / "it/val")
    assert complete(tmp_path / "it") and len(server.ranges) == 7
    assert names(tmp_path / "it") == [RECORD, ".tff-download.lock", "val"]


@pytest.mark.slow
def test_interrupt_from_the_keyboard(val, server, tmp_path):
    server.plan = [{"pause": 0.02}]
    process = start(val)
    part = tmp_path / "it/progan_val.zip.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 10_000, process)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130
    assert "Interrupted; run the same command again to resume." in error
    assert "Traceback" not in error
    assert main(val) == 0 and complete(tmp_path / "it")
    assert server.ranges[1] is not None


def test_second_process_is_refused(val, tmp_path, capsys):
    with lock(tmp_path / "it" / LOCK):
        assert "another process downloads into this folder" in error_of(val, capsys)
    assert main(val) == 0


def test_no_room_for_the_archive_and_the_images(val, server, capsys, disk):
    disk(1.5 * len(server.files[VAL]))
    assert "val with its archives needs 0.00 GB, but only 0.00 GB are free" in error_of(val, capsys)
    assert server.ranges == []


def test_damaged_archive(val, server, tmp_path, capsys):
    server.add_repo(REPO, {"progan_val.zip": server.files[VAL][:-50]}, COMMIT)
    error = error_of(val, capsys)
    assert "progan_val.zip: damaged, or not a zip archive" in error
    assert "Remove it" in error or "remove it" in error
    assert not (tmp_path / "it/val").exists()


def test_folder_of_unknown_origin_is_left_alone(val, tmp_path, capsys):
    (tmp_path / "it/val").mkdir(parents=True)
    (tmp_path / "it/val/mine.txt").write_text("mine")
    assert "was not made by this command" in error_of(val, capsys)
    assert names(tmp_path / "it/val") == ["mine.txt"]


def test_target_that_cannot_be_written(val, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = [*val[:2], f"to={tmp_path / 'file/below'}"]
    assert "cannot be written (Not a directory); choose another folder" in error_of(
        arguments, capsys
    )


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["nix", "split=val"], "no set 'nix'; known are aigcdetect"),
        (["forensynths"], "forensynths has train, val, test"),
        (["forensynths", "split=vla", "to=x"], "split=vla: forensynths has only train, val, test"),
        (["forensynths", "split=val"], "to=DIR is needed"),
        (["forensynths", "split=val", "into=x"], "into=x: unknown option; known are split="),
        (
            ["forensynths", "split=val", "to=x", "keep_archives=2"],
            "keep_archives=2: expected one of true, false",
        ),
    ],
)
def test_invalid_arguments(arguments, error, capsys):
    assert error in error_of(arguments, capsys)


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "forensynths" in capsys.readouterr().out


@pytest.mark.parametrize("name", list_sources())
def test_every_source(name, capsys):
    source = load_source(name)
    assert set(source.splits) or source.by_hand
    if not source.splits:
        assert main([name, "split=val", "to=x"]) == 1
        out = capsys.readouterr().out
        assert f"data={name} data.root=ROOT" in out
    conf = Path(__file__).parents[2] / "conf"
    assert (conf / "data" / f"{name}.yaml").is_file()
    for split in source.splits.values():
        assert split.hub is None or len(split.hub.revision) == 40
        assert all(file.url.startswith("https://") for file in split.files)


ONE = "files: [{url: 'https://h/x', gigabytes: 1}]"


@pytest.mark.parametrize(
    "text, error",
    [
        (f"splits: {{a: {{into: ../b, {ONE}}}}}", "name of a folder"),
        (f"splits: {{a: {{into: b, {ONE.replace('https', 'file')}}}}}", "https://HOST"),
        (f"splits: {{a: {{into: b, {ONE.replace('/x', '/')}}}}}", "that of a file"),
        (f"splits: {{a: {{into: b, {ONE.replace('/x', '/%2e%2e')}}}}}", "that of a file"),
        (f"splits: {{a: {{into: b, unpack: [rar], {ONE}}}}}", "rar"),
        ("splits: {a: {into: b, files: []}}", "expected one of the two"),
        (f"splits: {{a: {{into: b, {ONE.replace('gigabytes', 'size')}}}}}", "size"),
        ("splits: {a: {into: b, hub: {repo: x, files: [y]}}}", "hub.repo=x: expected OWNER/NAME"),
        ("splits: {a: {into: b, hub: {repo: x/y, files: []}}}", "hub.files"),
        ("splits: {a: {into: b, hub: {repo: x/y, files: [/z]}}}", "hub.files"),
        (f"splits: {{a: {{into: b, hub: {{repo: x/y, files: [z]}}, {ONE}}}}}", "one of the two"),
        ("splitz: {}", "splitz"),
        ("a: [", "bad.yaml"),
    ],
)
def test_bad_declarations(text, error, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text(text)
    text = error_of(["bad", "split=a", "to=x"], capsys, sources=tmp_path)
    assert error in text and "bad.yaml" in text


def test_plain_files(server, tmp_path, capsys):
    server.files["a.bin"] = BYTES
    conf = tmp_path / "conf"
    conf.mkdir()
    file = {"url": server.url("a.bin"), "gigabytes": 0.001, "bytes": len(BYTES), "sha256": SHA}
    (conf / "own.yaml").write_text(
        f"page: p\nlicence: l\nsplits: {{test: {{into: test, files: [{json.dumps(file)}]}}}}"
    )
    assert main(["own", "split=test", f"to={tmp_path / 'it'}"], conf) == 0
    assert names(tmp_path / "it/test") == [RECORD, MARKER, "a.bin"]
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "it/test"


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_a_record_left_by_somebody_else_deletes_nothing_outside(val, tmp_path, name):
    """It may name any file as an archive of ours."""
    (tmp_path / "it").mkdir()
    (tmp_path / "outside").write_text("precious")
    name = name if name[0] == "." else str(tmp_path / "outside")
    key = f"{REPO}@{COMMIT}"
    record = {key: {"commit": COMMIT, "files": [name, 1, None]}, name: {"ours": True}, "a": [1]}
    (tmp_path / "it" / MARKER).parent.mkdir(exist_ok=True)
    (tmp_path / "it/val").mkdir()
    (tmp_path / "it/val" / MARKER).write_text(json.dumps({"set": "forensynths", "split": "val"}))
    (tmp_path / "it" / RECORD).write_text(json.dumps(record))
    assert main(val) == 0
    assert (tmp_path / "outside").read_text() == "precious"


@pytest.mark.parametrize("name", [RECORD, LOCK, f"val/{MARKER}", "progan_val.zip"])
def test_a_pipe_in_the_folder_of_a_set_does_not_block(val, tmp_path, name, capsys):
    path = tmp_path / "it" / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    if name == RECORD:
        assert main(val) == 0
    else:
        assert str(path) in error_of(val, capsys) or name == f"val/{MARKER}"
