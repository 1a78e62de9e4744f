"""The scripts on a machine that fails: one sentence, and nothing that looks whole and is not."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
from tests.helpers import machine_faults

from tff.detectors.safe_load import read


@pytest.fixture(scope="module")
def images(trained_run):
    return trained_run / "images"


@pytest.fixture(scope="module")
def trained(trained_run):
    return trained_run / "run"


def train(images, out, *options, **how):
    common = (*machine_faults.TRAIN, f"data.root={images}", f"hydra.run.dir={out}")
    return machine_faults.start("train.py", *common, *options, **how)


def analyze(trained, out, *options, **how):
    ckpt = f"ckpt={trained}/checkpoints/best.ckpt"
    common = (ckpt, *machine_faults.ANALYZE, f"hydra.run.dir={out}")
    return machine_faults.start("analyze.py", *common, *options, **how)


def state(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


MORE = ("trainer.max_epochs=3", "resume=auto", "data.workers=0")


def test_a_checkpoint_that_cannot_be_written_leaves_the_former_one(images, trained, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    (out / "finished.json").unlink()
    before = state(out / "checkpoints")
    said = machine_faults.failed(train(images, out, *MORE, limit=1_000_000))
    assert str(out / "checkpoints") in said
    assert "larger files are not allowed" in said
    assert "resume=auto" in said
    assert state(out / "checkpoints") == before
    assert not machine_faults.unfinished(out)
    assert not (out / "finished.json").exists()
    assert json.loads((out / "failed.json").read_text())["type"] == "OSError"


@pytest.mark.slow
def test_a_training_on_a_disk_that_becomes_full_goes_on_later(images, trained, tmp_path):
    size = (trained / "checkpoints" / "last.ckpt").stat().st_size
    with machine_faults.disk(tmp_path / "disk", f"size={7 * size // 2}") as disk:
        out, other = disk / "run", disk / "other"
        other.write_bytes(bytes(size))  # leaves room for two checkpoints, and no third one beside
        said = machine_faults.failed(train(images, out, "trainer.max_epochs=3", "data.workers=0"))
        assert f"{out}/checkpoints/" in said
        assert "the disk is full" in said
        last = out / "checkpoints" / "last.ckpt"
        assert read(last)["epoch"] == 0
        assert not machine_faults.unfinished(out)
        other.unlink()
        code, text = machine_faults.ended(train(images, out, *MORE))
        assert code == 0, text[-4000:]
        assert read(last)["epoch"] == 2


@pytest.mark.slow
def test_metrics_on_a_full_disk(images, tmp_path):
    elsewhere = tmp_path / "checkpoints"
    with machine_faults.disk(tmp_path / "disk", "size=256k") as disk:
        out = disk / "run"
        process = train(
            images, out, "trainer.max_epochs=10000", "data.workers=0",
            f"callbacks.best.dirpath={elsewhere}", f"callbacks.last.dirpath={elsewhere}",
        )  # fmt: skip
        machine_faults.until((out / "logs" / "train" / "metrics.csv").is_file, process)
        with pytest.raises(OSError, match="No space"), (disk / "other").open("wb") as other:
            while True:
                other.write(bytes(1024))
                other.flush()
        said = machine_faults.failed(process)
        assert str(out) in said
        assert "the disk is full" in said
        assert not (out / "finished.json").exists()
    assert read(elsewhere / "last.ckpt")["global_step"] > 0
    assert not machine_faults.unfinished(elsewhere)


@pytest.mark.slow
def test_an_analysis_keeps_what_was_finished(trained, tmp_path):
    out, passes = tmp_path / "out", tmp_path / "out" / "passes"
    options = ("analysis=[ranking,ablation,median_test]",)
    said = machine_faults.failed(analyze(trained, out, *options, limit=40_000))
    (home,) = passes.iterdir()
    assert f"{home}/evaluate-" in said
    assert "larger files are not allowed" in said
    first = {p: p.stat().st_mtime_ns for p in home.glob("*.parquet")}
    assert any(p.name.startswith("relevance-") for p in first)
    assert not any(p.name.startswith("evaluate-") for p in first)
    said = machine_faults.failed(analyze(trained, out, *options, limit=150_000))
    assert str(out) in said
    assert "larger files are not allowed" in said
    then = {p: p.stat().st_mtime_ns for p in home.glob("*.parquet")}
    assert first.items() <= then.items()
    assert len([p for p in then if p.name.startswith("evaluate-")]) == 2
    assert not (out / "report").exists()
    assert not machine_faults.unfinished(out)


def workers_of(process):
    """Processes that load images: forks, which have the command of the one that trains."""
    command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(c) for c in children if Path(f"/proc/{c}/cmdline").read_bytes() == command]


needs_proc = pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs Linux's /proc"
)


@needs_proc
@pytest.mark.slow
def test_a_worker_is_killed_in_training(images, tmp_path):
    process = train(images, tmp_path, "trainer.max_epochs=10000", "data.workers=2")
    last = tmp_path / "checkpoints" / "last.ckpt"
    machine_faults.until(last.is_file, process)
    os.kill(machine_faults.until(lambda: workers_of(process), process)[0], signal.SIGKILL)
    said = machine_faults.failed(process)
    assert "a process that loads images was killed" in said
    assert "data.workers=N" in said
    assert read(last)["global_step"] > 0
    assert not machine_faults.unfinished(tmp_path)
    assert not (tmp_path / "finished.json").exists()


# A process that was forked to load images dies of the first one.
DIES = """
import os, signal, sys

def die(images, key):
    os.kill(os.getpid(), signal.SIGKILL)

def forked():
    if "tff.data.dataset" in sys.modules:
        sys.modules["tff.data.dataset"].Images.__getitem__ = die

os.register_at_fork(after_in_child=forked)
"""


@pytest.mark.slow
def test_a_worker_is_killed_in_an_analysis(trained, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(DIES)
    out = tmp_path / "out"
    said = machine_faults.failed(
        analyze(trained, out, "analysis=detection", "subject.workers=2", PYTHONPATH=str(tmp_path))
    )
    assert "a process that loads images was killed" in said
    assert "subject.workers=N" in said
    assert not list(out.rglob("evaluate-*"))
    assert not (out / "report").exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train.py", "analyze.py"])
def test_no_room_in_shared_memory(images, trained, tmp_path, script):
    out = tmp_path / "out"
    workers = "data.workers=2" if script == "train.py" else "subject.workers=2"
    mount = "mount -t tmpfs -o size=8k tmpfs /dev/shm"
    start = partial(train, images) if script == "train.py" else partial(analyze, trained)
    said = machine_faults.failed(
        start(out, workers, within=machine_faults.namespace("-m", mount)), 60
    )
    assert "no room in /dev/shm" in said
    assert "--shm-size" in said
    assert (out / "failed.json").exists() == (script == "train.py")


@pytest.mark.slow
def test_a_worker_names_the_image_that_it_cannot_read(images, tmp_path):
    root = tmp_path / "images"
    shutil.copytree(images, root)
    process = train(root, tmp_path / "run", "trainer.max_epochs=10000", "data.workers=2")
    machine_faults.until((tmp_path / "run" / "checkpoints" / "last.ckpt").is_file, process)
    for bad in root.rglob("*.png"):  # as when a disk goes away
        bad.unlink()
    said = machine_faults.failed(process)
    assert said.startswith(f"Error: {root}")
    assert "cannot be read" in said


FILE = "is a file where a folder is needed"


@pytest.mark.parametrize(
    ("script", "folder", "reason"),
    [
        ("train.py", "/proc/nowhere/run", "/proc: permission denied"),
        ("analyze.py", "FILE/run", FILE),
        ("train.py", "FILE", FILE),
    ],
)
def test_a_folder_that_cannot_be_written_is_reported_at_once(script, folder, reason, tmp_path):
    (tmp_path / "file").touch()
    folder = folder.replace("FILE", str(tmp_path / "file"))
    said = machine_faults.failed(machine_faults.start(script, f"hydra.run.dir={folder}"))
    assert folder in said
    assert reason in said


def test_a_read_only_disk_is_reported_at_once(tmp_path):
    with machine_faults.disk(tmp_path / "disk", "ro") as disk:
        said = machine_faults.failed(
            machine_faults.start("analyze.py", f"hydra.run.dir={disk}/run")
        )
        assert f"{disk}: the disk is read-only" in said


@pytest.mark.slow
def test_passes_below_a_file(trained, tmp_path):
    (tmp_path / "file").touch()
    passes = f"passes={tmp_path}/file/passes"
    said = machine_faults.failed(analyze(trained, tmp_path / "out", "analysis=detection", passes))
    assert str(tmp_path / "file") in said
    assert FILE in said
    assert not (tmp_path / "out" / "report").exists()
