"""Signals in one process: where a training ends, and what it leaves."""

import os
import signal
import threading
import time

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from tests.helpers import tiny
from tests.helpers.resuming import same, train

from tff.detectors.safe_load import read
from tff.training.signals import SIGNALS, Interrupt, StoppedBySignal, requeue


class Send(pl.Callback):
    """Send this process a signal at the n-th time that a hook is called."""

    def __init__(self, hook, count, number, swallow=False):
        self.count, self.number, self.swallow = count, number, swallow
        self.went_on = False
        setattr(self, hook, self.send)

    def send(self, *_):
        self.count -= 1
        if self.count == 0:
            try:
                os.kill(os.getpid(), self.number)
                time.sleep(0.05)
                self.went_on = True
            except BaseException:  # as a destructor does
                if not self.swallow:
                    raise


class SendLater(Send, Checkpoint):
    """Stands after the checkpoints, where an analysis does."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen",), images=20, size=32)


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    train(root, out, steps=None)
    return out


@pytest.fixture(autouse=True)
def handlers():
    """Each test leaves the handlers as they were."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=[pytest.mark.slow] * (n != signal.SIGTERM), id=n.name) for n in SIGNALS],
)
@pytest.mark.parametrize(
    ("hook", "count", "step"),
    [
        ("on_train_batch_start", 3, 3), ("on_train_batch_end", 6, 6),
        ("on_validation_batch_start", 2, 6), ("on_validation_end", 1, 6),
        ("on_train_epoch_start", 2, 6),
    ],
)  # fmt: skip
def test_saves_where_it_can_go_on(root, whole, tmp_path, number, hook, count, step):
    with pytest.raises(StoppedBySignal) as stopped:
        callbacks = [Send(hook, count, number)]
        train(root, tmp_path, steps=None, callbacks=callbacks)
    assert stopped.value.code == 128 + number
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert read(last)["global_step"] in (step, step + 1)
    train(root, tmp_path, str(last), steps=None)
    same(tmp_path, whole)


@pytest.mark.parametrize(
    ("hook", "count", "step"),
    [
        ("on_train_batch_end", 2, 2), ("on_train_batch_end", 6, 6), ("on_validation_start", 1, 6),
        ("on_validation_batch_start", 2, 6), ("on_validation_end", 1, 6),
        ("on_train_epoch_end", 1, 6), ("on_train_start", 1, None),
    ],
)  # fmt: skip
def test_ends_at_once_where_all_is_saved(root, whole, tmp_path, hook, count, step):
    """Whatever follows a checkpoint, such as its analysis, may take long."""
    send = SendLater(hook, count, signal.SIGUSR1)
    with pytest.raises(StoppedBySignal):
        train(root, tmp_path, steps=1, kill=send)
    assert not send.went_on
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert (read(last)["global_step"] if last.is_file() else None) == step
    train(root, tmp_path, str(last) if step else None, steps=None)
    same(tmp_path, whole)


def test_a_signal_that_got_lost_ends_the_training(root, tmp_path):
    send = Send("on_train_start", 1, signal.SIGINT, swallow=True)
    with pytest.raises(StoppedBySignal):
        train(root, tmp_path, callbacks=[send], epochs=50)
    assert send.count == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_training_it_ends_at_once(number):
    with pytest.raises(StoppedBySignal) as stopped, Interrupt(None):
        os.kill(os.getpid(), number)
        time.sleep(1)
        pytest.fail("goes on")
    assert stopped.value.code == 128 + number


def test_handlers_are_as_they_were(root, tmp_path, handlers):
    train(root, tmp_path, epochs=1)
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers


def test_a_handler_of_others_is_called_after_saving_and_may_go_on(root, tmp_path):
    last, steps = tmp_path / "checkpoints" / "last.ckpt", []
    signal.signal(signal.SIGUSR2, lambda *_: steps.append(read(last)["global_step"]))
    callbacks = [Send("on_train_batch_start", 2, signal.SIGUSR2)]
    _, metrics = train(root, tmp_path, steps=None, callbacks=callbacks, epochs=1)
    assert steps == [2]
    assert metrics


def test_ignored_signals_stay_ignored(root, tmp_path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    callbacks = [Send("on_train_batch_start", 2, signal.SIGINT)]
    _, metrics = train(root, tmp_path, callbacks=callbacks, epochs=1)
    assert metrics


def test_beside_the_main_thread_nothing_is_listened_to(handlers):
    found = []

    def work():
        with Interrupt(None):
            found.append({number: signal.getsignal(number) for number in SIGNALS})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [handlers]


def test_requeue_asks_slurm_once_and_only_in_a_job(tmp_path, monkeypatch):
    asked, tool = tmp_path / "asked", tmp_path / "scontrol"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "x"}
    assert requeue(signal.SIGUSR1, job)
    assert requeue(signal.SIGUSR2, {**job, "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"})
    assert not requeue(signal.SIGTERM, job)
    assert not requeue(signal.SIGUSR1, {})
    assert not requeue(signal.SIGUSR1, {**job, "SLURM_JOB_NAME": "bash"})
    assert asked.read_text() == "requeue 7\nrequeue 5_2\n"
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert not requeue(signal.SIGUSR1, job)
    tool.unlink()
    assert not requeue(signal.SIGUSR1, job)
