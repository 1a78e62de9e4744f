"""Workers end with their process, a process that has some can end, and none waits in vain."""

import errno
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.helpers import tiny

from tff.data import loaders
from tff.data.dataset import Images
from tff.data.folder import Folder
from tff.errors import explain


def data_of(root):
    data = Folder(root=root, batch_size=4, size=32, workers=2)
    data.setup("fit")
    return data


def leaves(root):
    """Leave in the midst of an epoch, while workers prepare the next batches."""
    batches = iter(data_of(root).train_dataloader())
    next(batches)
    worker, _ = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert worker.is_alive(), "hears signals"
    kept.append(batches)
    sys.exit(7)


def fails(root):
    """The caller goes on after an image that cannot be read, and holds on to the error."""
    for path in Path(root).rglob("*.png"):
        path.write_bytes(b"no image")
    try:
        list(data_of(root).train_dataloader())
    except ValueError as error:
        kept.append(error)
    assert not multiprocessing.active_children()
    sys.exit(7)


def forgets(root):
    """Workers in a cycle of references, whose queues are collected before them."""
    cycle = [iter(data_of(root).train_dataloader())]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert not multiprocessing.active_children()
    sys.exit(7)


kept = []


def test_error_in_a_worker_is_raised_and_stops_the_workers(tmp_path):
    root = tiny.tree(tmp_path, ("seen",), images=8, size=32)
    data = data_of(str(root))
    batches = data.train_dataloader()
    for path in root.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"^/.*\.png \(8 bytes\): damaged") as error:
        list(batches)
    assert error.value.__cause__ is None
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("manner", [fails, leaves, forgets])
def test_a_process_with_workers_ends(tmp_path, manner):
    root = tiny.tree(tmp_path, ("seen",), images=20, size=32)
    process = multiprocessing.get_context("spawn").Process(target=manner, args=(str(root),))
    process.start()
    process.join(120)
    try:
        assert process.exitcode == 7
    finally:
        process.kill()


# Whatever keeps a worker from handing over ends in one error within seconds.


@pytest.fixture
def batches_of(image_tree, monkeypatch):
    """Batches of images from two workers, in which something of the given objects is replaced."""

    def load(**replaced):
        images = Folder(root=str(image_tree)).images("all")
        for name, new in replaced.items():
            where, attribute = PLACES[name]
            monkeypatch.setattr(where, attribute, new)
        return loaders.loader(images, loaders.EvaluationBatches(images, 4), 2)

    yield load
    assert not multiprocessing.active_children()


PLACES = {
    "share": (torch.UntypedStorage, "_share_fd_cpu_"),
    "image": (Images, "__getitem__"),
    "fork": (os, "fork"),
    "semaphore": (multiprocessing.synchronize.SemLock, "__init__"),
    "thread": (threading.Thread, "start"),
}


def raises(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def fork_once(times=[]):  # noqa: B006 counts the calls
    times.append(os.getpid())
    if times.count(os.getpid()) % 2 == 0:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return FORK()


FORK = os.fork
NO_ROOM = RuntimeError(
    "unable to allocate shared memory(shm) for file </torch_12_34_0>: No space left on device (28)"
)


class LocalError(Exception):
    """Cannot be pickled: it is not where its name says."""


LocalError.__qualname__ = "nowhere.LocalError"


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        ({"share": raises(NO_ROOM)}, "no room in /dev/shm; give it more .docker run --shm-size"),
        ({"share": raises(OSError(errno.EMFILE, "Too many open files"))}, "ulimit -n"),
        ({"share": raises(MemoryError())}, "not enough memory"),
        ({"share": raises(OSError("AF_UNIX path too long"))}, "TMPDIR to a shorter one"),
        ({"share": raises(LocalError("odd"))}, "since .*LocalError: odd"),
        ({"fork": fork_once}, "ulimit -u"),
        ({"semaphore": raises(OSError(errno.ENOSPC, "No space left"))}, "no room in /dev/shm"),
        ({"semaphore": raises(OSError(errno.ENOENT, "No such file"))}, "/dev/shm is missing"),
        ({"semaphore": raises(OSError(errno.EROFS, "Read-only"))}, "/dev/shm is missing"),
        ({"semaphore": raises(ImportError("lacks a functioning sem_open"))}, "/dev/shm is missing"),
        ({"thread": raises(RuntimeError("can't start new thread"))}, "ulimit -u"),
    ],
)
def test_a_batch_that_cannot_be_handed_over(batches_of, replaced, reason, capfd):
    start = time.monotonic()
    with pytest.raises(OSError, match=reason) as error:
        list(batches_of(**replaced))
    assert time.monotonic() - start < 20
    assert "the 2 processes that load images cannot hand over" in str(error.value)
    assert "data.workers=N" in str(error.value)
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (LocalError("odd"), ValueError, "cannot load a batch of images: .*LocalError: odd"),
        (
            RuntimeError("stack expects"),
            ValueError,
            "RuntimeError: stack expects",
        ),
        (MemoryError("x"), OSError, "not enough memory"),
        (KeyError("x"), ValueError, "KeyError: 'x'"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_of_which_no_batch_can_be_made(
    image_tree, monkeypatch, error, kind, reason, workers
):
    monkeypatch.setattr(Images, "__getitem__", raises(error))
    images = Folder(root=str(image_tree)).images("all")
    with pytest.raises(kind, match=reason) as caught:
        list(loaders.loader(images, loaders.EvaluationBatches(images, 4), workers))
    assert "\n" not in str(caught.value)


def test_a_stopped_worker_does_not_keep_its_process_waiting(batches_of, monkeypatch):
    monkeypatch.setattr(loaders, "STOPPED", 2.0)

    def stop(images, key):
        os.kill(os.getpid(), signal.SIGSTOP)

    with pytest.raises(OSError, match=r"is stopped \(`kill -STOP \d+`"):
        list(batches_of(image=stop))


def test_a_batch_that_never_comes(batches_of):
    loaders.limit_waiting(2)
    try:
        with pytest.raises(OSError, match="have given no batch for 2 s"):
            list(batches_of(image=lambda images, key: time.sleep(60)))
    finally:
        loaders.limit_waiting()


def test_a_worker_that_is_killed_while_others_start(batches_of, monkeypatch):
    killed = RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")
    batches = batches_of(thread=raises(killed))
    with pytest.raises(RuntimeError, match="is killed by signal"):
        list(batches)


def test_a_killed_worker(batches_of):
    def die(images, key):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"killed by signal|exited unexpectedly") as error:
        list(batches_of(image=die))
    assert explain(error.value).startswith("a process that loads images was killed")
