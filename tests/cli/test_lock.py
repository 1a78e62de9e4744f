"""One training in a folder at a time."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tff.cli.run_folder import RANKS, is_running, lock_folder

#: Holds the lock of the folder, with a child that outlives it.
HOLDER = """
import os, subprocess, sys, time
from tff.cli.run_folder import lock_folder
with lock_folder(sys.argv[1]):
    child = sys.argv[2]
    if child == "forked":
        pid = os.fork()
        if not pid:
            print(os.getpid(), flush=True)
            time.sleep(60)
            os._exit(0)
    elif child == "started":
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        subprocess.Popen([sys.executable, "-c", code])
    else:
        print(0, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for rank in RANKS:
        monkeypatch.delenv(rank, raising=False)


@contextmanager
def holder(folder, child="none"):
    """A process that holds the lock; the number of its child, once there."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), child], stdout=subprocess.PIPE, text=True
    )
    pid = 0
    try:
        pid = int(process.stdout.readline())
        yield process, pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        if pid:
            os.kill(pid, signal.SIGKILL)


def test_a_second_one_is_refused_and_a_third_one_after_the_end_is_not(tmp_path):
    assert not is_running(tmp_path)
    with holder(tmp_path):
        assert is_running(tmp_path)
        words = r"another training is running .*\(hydra\.run\.dir=DIR\)"
        with pytest.raises(ValueError, match=words), lock_folder(tmp_path):
            raise AssertionError
        with lock_folder(tmp_path / "elsewhere"):
            pass
    with lock_folder(tmp_path):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
    with pytest.raises(KeyError), lock_folder(tmp_path):
        raise KeyError
    assert not is_running(tmp_path)


@pytest.mark.parametrize("child", ["forked", "started"])
def test_the_lock_of_a_killed_process_is_gone_though_its_children_live(tmp_path, child):
    with holder(tmp_path, child) as (process, pid):
        assert is_running(tmp_path)
        process.kill()
        process.wait()
        os.kill(pid, 0)  # it lives
        assert not is_running(tmp_path)
        with lock_folder(tmp_path):
            pass


def test_a_child_that_ends_leaves_the_lock_where_it_is(tmp_path):
    with lock_folder(tmp_path):
        if not (pid := os.fork()):
            os._exit(0)
        os.waitpid(pid, 0)
        assert is_running(tmp_path)


@pytest.mark.parametrize("rank", RANKS)
def test_other_processes_of_a_job_come_in(tmp_path, monkeypatch, rank):
    with holder(tmp_path):
        monkeypatch.setenv(rank, "1")
        with lock_folder(tmp_path):
            pass
        monkeypatch.setenv(rank, "0")
        with pytest.raises(ValueError, match="another training"), lock_folder(tmp_path):
            pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch, caplog, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with caplog.at_level(logging.DEBUG, "tff"), lock_folder(tmp_path), lock_folder(tmp_path):
        assert not is_running(tmp_path)
    assert "continuing without a lock" in caplog.text
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
