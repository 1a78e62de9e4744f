"""Stopping a training by a signal: save, requeue the job under SLURM, end all processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.distributed import ReduceOp, all_reduce

from tff.data.loaders import limit_waiting
from tff.startup import guard_output, write_now
from tff.training.checkpointing import Last, is_validation_due

log = logging.getLogger(__name__)
#: Ctrl-C; the end of a job; and what clusters send before the time of a job is up.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
LAST_BATCH = 10.0  # seconds after a signal to wait for the batch of the last step
SLURM_ANSWERS = 30.0  # seconds


class StoppedBySignal(SystemExit):
    """A signal has stopped the training, which is saved.

    Args:
        number: of the signal.
        quiet: exit with 0: launchers kill all processes when one exits with another code.
    """

    def __init__(self, number: int, quiet: bool = False) -> None:
        super().__init__(0 if quiet else 128 + number)
        self.number = number


class Interrupt(Callback):
    """Stops a training on a signal, at the next point from which it can be resumed.

    Such points are the end of an optimizer step, each batch of a validation (which is then run
    again), the time between two analyses, and any moment at which a checkpoint holds all steps. All
    processes agree on the point. A second Ctrl-C exits at once. A handler that was there before,
    such as that of submitit, is called after saving, and may let the training continue.

    It is also a context for the whole run: outside of the training, where there is nothing to save,
    a signal ends the run directly. Spawned processes handle signals as soon as they unpickle it.

    Args:
        last: writes the checkpoint from which a training is resumed; None: nothing is saved.
    """

    def __init__(self, last: Last | None) -> None:
        self.last = last
        #: The signal that has arrived; 0: none.
        self.number = 0
        self._arrived = 0.0
        self._former: dict[int, Any] = {}
        self._pid = os.getpid()
        self._launcher: Any = None
        self._trains = self._several = False
        self._step = 0
        #: Number of checkpoints written when this batch began; None: there is nothing to save.
        self._written: int | None = None

    # The context: handlers of this process.

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}
        limit_waiting()
        if kind is None and self.number:
            raise StoppedBySignal(self.number)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_launcher": None, "_former": {}, "number": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if os.getpid() != self._pid:  # spawned; a signal may arrive before its training begins
            guard_output()
            self._listen()

    def forward_to(self, launcher: Any) -> None:
        """Forward signals to the processes that the launcher of a strategy spawns to train."""
        self._launcher = launcher

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows it in the main thread only
        self._pid = os.getpid()
        for number in SIGNALS:
            former = signal.getsignal(number)
            if former is not signal.SIG_IGN and former is not None:
                self._former[number] = former
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid or not self._former:
            # A forked process without handlers of its own, or Lightning has restored this one.
            if number == signal.SIGTERM or not self._former:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if number == self.number == signal.SIGINT and time.monotonic() - self._arrived > 1:
            write_now(b"\nExiting at once.\n")
            os._exit(128 + number)
        if not self.number:
            self.number, self._arrived = number, time.monotonic()
            limit_waiting(LAST_BATCH)
        if self._trains and (self._several or not self._is_saved()):
            again = b"; press Ctrl-C again to exit at once" if number == signal.SIGINT else b""
            write_now(b"\nStopping after this step" + again + b".\n")
        elif _has_children(self._launcher):  # they train, and this process only waits
            self._launcher.kill(number)  # they save, and `fit` sees their end
        elif not self._hand_over(number, frame):
            # Python would wait for spawned processes, and they for each other. Files are written
            # atomically, and workers of a loader end with their process.
            for process in multiprocessing.active_children():
                if not process.daemon:
                    process.kill()
            if int(os.environ.get("SLURM_PROCID", 0)) == 0:
                requeue(number)
            raise StoppedBySignal(number)

    def _hand_over(self, number: int, frame: FrameType | None = None) -> bool:
        """Call the former handler; whether there is one that lets the training continue."""
        former = self._former.get(number)
        if not callable(former) or former is signal.default_int_handler:
            return False
        self.number = 0
        limit_waiting()
        former(number, frame)
        return True

    # The callback: points at which the training may stop.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # On SIGTERM Lightning would end without a checkpoint; and its handler communicates with the
        # other processes, so it would wait for those that have not got the signal.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # From here on processes wait for each other; there is nothing to save yet.
        self._trains, self._several, self._written = True, trainer.world_size > 1, None

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self._is_saved():  # such as after the last epoch's checkpoint
            self._check(trainer)
        self._step = trainer.global_step
        self._written = self.last.written if self.last else 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step != self._step:  # gradients are not being accumulated
            self._check(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # Not with several processes: their batches differ in number.
        if self._trains and not self._several and not trainer.sanity_checking:
            self._check(trainer, in_validation=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._written = None  # all is saved, but an analysis may follow
        self._check(trainer)
        self._trains = False

    def on_exception(self, *_: Any) -> None:
        self._trains = False

    def check_between(self, trainer: Trainer) -> None:
        """Stop between two analyses; after a validation, only if no validation would run twice."""
        if self._is_saved() or not trainer.validating:
            self._check(trainer)

    def _is_saved(self) -> bool:
        """Whether a checkpoint holds all that was trained."""
        written = self.last.written if self.last else 0
        return self._written is None or written > self._written

    def _check(self, trainer: Trainer, in_validation: bool = False) -> None:
        """If a signal has arrived in any process: save what is not saved, and stop in all."""
        number = self._agree_on_signal(trainer)
        if not number:
            return
        if self.last and not self._is_saved():
            self.last.save(trainer, in_validation or is_validation_due(trainer))
        if self._hand_over(number):
            return
        self._trains = False
        if trainer.is_global_zero:
            requeue(number)
        raise StoppedBySignal(number, quiet=not trainer.is_global_zero)

    def _agree_on_signal(self, trainer: Trainer) -> int:
        if trainer.world_size == 1:
            return self.number
        number = torch.tensor(self.number, device=trainer.strategy.root_device)
        all_reduce(number, op=ReduceOp.MAX)
        return int(number)


def stop_if_signaled(trainer: Trainer) -> None:
    """Stop a training here if a signal has arrived, on all processes; for what takes long."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Interrupt):
            callback.check_between(trainer)


def requeue(number: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Call `scontrol requeue` if SIGUSR1 or SIGUSR2 was sent to a job; whether SLURM has agreed.

    SIGTERM means that somebody wants the job to end, and an interactive shell is no job.
    """
    job = environ.get("SLURM_JOB_ID")
    if number not in (signal.SIGUSR1, signal.SIGUSR2) or not job:
        return False
    if environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return False
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=SLURM_ANSWERS
        )
        problem = done.stderr.strip() if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem is None:
        log.warning("job %s is requeued", job)
    else:
        log.error("job %s cannot be requeued (%s): start it with resume=auto", job, problem)
    return problem is None


def _has_children(launcher: Any) -> bool:
    """Whether spawned processes are alive; launchers of scripts hold other objects."""
    processes = getattr(launcher, "procs", None) or ()
    return any(isinstance(p, BaseProcess) and p.is_alive() for p in processes)
