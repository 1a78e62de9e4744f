"""Run the scripts on a machine with a fault: full disk, file size limit, signals."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = (
    "detector=timm", "detector.name=test_resnet", "detector.pretrained=false", "aug=none",
    "data=folder", "data.size=32", "data.batch_size=4", "trainer.accelerator=cpu",
    "callbacks.progress=null", "callbacks.analyze=null", "callbacks.schedule=null",
)  # fmt: skip
#: Hidden files that a finished run contains.
KEPT = (".hydra", ".hydra-analyze", ".lock")
ANALYZE = ("images=6", "subject.confidence=0", "subject.draws=20", "trainer.accelerator=cpu")


def start(name, *options, limit=None, cwd=ROOT, within=(), **environ):
    """Start a script in its own process.

    Args:
        limit: maximum size of a file in bytes.
        within: command that starts the command.
    """
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    size = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)) if limit else None
    return subprocess.Popen(
        [*within, sys.executable, str(ROOT / name), *options], cwd=cwd, text=True, preexec_fn=size,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, **quiet, **environ},
    )  # fmt: skip


def ended(process, seconds=150):
    """(exit code, output) of the process; a timeout fails the test."""
    try:
        text, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"does not end:\n{process.communicate()[0][-4000:]}")
    return process.returncode, text


def namespace(options, prepare):
    """Command that runs another one in namespaces; skip the test where this is not permitted."""
    within = ("unshare", options, "sh", "-c", f'{prepare} && exec "$@"', "sh")
    if (
        not shutil.which("unshare")
        or subprocess.run([*within, "true"], capture_output=True).returncode
    ):
        pytest.skip("no namespace can be made here")
    return within


def failed(process, seconds=150):
    """Error line of a process that must fail with one sentence and no traceback."""
    code, text = ended(process, seconds)
    assert code == 1, text[-4000:]
    assert "Traceback" not in text, text[-6000:]
    assert text.count("Error: ") == 1, text[-4000:]
    return next(line for line in text.splitlines() if line.startswith("Error: "))


def until(what, process, seconds=120):
    """Wait until `what()` is true while a script runs."""
    end = time.monotonic() + seconds
    while not (found := what()):
        if process.poll() is not None or time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"does not come:\n{process.communicate()[0][-4000:]}")
        time.sleep(0.01)
    return found


@contextmanager
def disk(folder, options):
    """Mount a file system in memory; skip the test where this is not permitted."""
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def unfinished(folder):
    """Temporary files of interrupted writes anywhere in the folder."""
    return [p for p in folder.rglob(".*") if p.name not in KEPT]
