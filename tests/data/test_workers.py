"""Workers end with their process, and a process that has some can end."""

import gc
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.helpers import tiny

from tff.data.folder import Folder


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
