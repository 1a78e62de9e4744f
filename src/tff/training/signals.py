"""Signals: save, requeue, stop all processes."""

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

from tff.training.analyze_checkpoints import AnalyzeCheckpoints
from tff.training.checkpointing import Last, is_validation_due

#: Ctrl-C; the end of a job; and what clusters send before the time of a job is up.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StoppedBySignal(SystemExit):
    """A signal has ended the training; all that matters is saved.

    Args:
        number: of the signal.
        quiet: exit with 0. Who starts processes kills all of them when another one than the first
            ends otherwise.
    """

    def __init__(self, number: int, quiet: bool = False) -> None:
        super().__init__(0 if quiet else 128 + number)
        self.number = number


def trains_in_children(launcher: Any) -> bool:
    """Whether processes that Lightning has spawned do the training, and this one only waits.

    Args:
        launcher: of the strategy. One that starts scripts trains in this process as well.
    """
    procs = getattr(launcher, "procs", None) or ()
    return any(isinstance(process, BaseProcess) and process.is_alive() for process in procs)


def kill_children() -> None:
    """End those that were spawned: Python would wait for them, and they for each other.

    Nothing is lost with them: what is written is written beside and renamed. Workers of a loader
    end with it.
    """
    for process in multiprocessing.active_children():
        if not process.daemon:
            process.kill()


log = logging.getLogger(__name__)


def requeue(number: int, environ: Mapping[str, str] = os.environ) -> bool:
    """`scontrol requeue` for SIGUSR1 and SIGUSR2 in a job; whether SLURM has agreed.

    SIGTERM means that someone wants the job to end, and a shell that SLURM has given is no job.
    """
    job = environ.get("SLURM_JOB_ID")
    if number not in (signal.SIGUSR1, signal.SIGUSR2) or not job:
        return False
    if environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return False
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        problem = done.stderr.strip() if done.returncode else None
    except OSError as error:
        problem = str(error)
    if problem is None:
        log.warning("job %s is queued again", job)
    else:
        log.error("job %s cannot be queued again (%s): start it with resume=auto", job, problem)
    return problem is None


def was_requeued(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether SLURM has started this job before."""
    return int(environ.get("SLURM_RESTART_COUNT") or 0) > 0


class Signals:
    """Listens to signals, in this process and in those that are started with it.

    Where `waits` is set, a signal is noted in `number` for who completes a step to act on; a second
    Ctrl-C ends at once. Elsewhere there is nothing to save, and a signal ends the run directly. A
    handler that was there before, such as submitit's, is called then and may go on.

    Use as a context around all that may take long.
    """

    def __init__(self) -> None:
        self.number = 0
        #: Starts the processes of the training; None where this is the only one.
        self.launcher: Any = None
        self._former: dict[int, Any] = {}
        self._when, self._pid = 0.0, os.getpid()
        self._entered = False
        #: Whether a step is being made that has to be completed.
        self.waits = False

    def __getstate__(self) -> dict[str, Any]:
        """A process that is started listens for itself."""
        return {**self.__dict__, "launcher": None, "_former": {}, "number": 0, "_entered": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """It does so as early as it can: a signal may come before its training begins."""
        self.__dict__.update(state)
        if os.getpid() != self._pid:
            self.listen()

    def __enter__(self) -> Self:
        self._entered = True
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._entered = False
        self.ignore()
        if kind is None and self.number:
            raise StoppedBySignal(self.number)

    def listen(self) -> None:
        """Take over from the handlers of before, once."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows it nowhere else
        self._pid = os.getpid()
        for number in SIGNALS:
            now = signal.getsignal(number)
            if now is not signal.SIG_IGN and now is not None:
                self._former.setdefault(number, now)
                signal.signal(number, self._note)

    def ignore(self) -> None:
        """Give back to the handlers of before."""
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid or not self._former:
            # A child that has not set its own, or Lightning has put this back after all was over.
            if number == signal.SIGTERM or not self._former:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if number == self.number == signal.SIGINT and time.monotonic() - self._when > 1:
            os.write(2, b"\nEnds at once.\n")
            os._exit(128 + number)
        if not self.number:
            self.number, self._when = number, time.monotonic()
        if self.waits:
            again = b"; Ctrl-C once more ends at once" if number == signal.SIGINT else b""
            os.write(2, b"\nSaves after this step" + again + b".\n")
        elif trains_in_children(self.launcher):
            self.launcher.kill(number)  # they save, and their end is seen in `fit`
        elif not self.handed_over(number, frame):
            kill_children()
            if int(os.environ.get("SLURM_PROCID", 0)) == 0:
                requeue(number)
            raise StoppedBySignal(number)

    def handed_over(self, number: int, frame: FrameType | None) -> bool:
        """Whether a former handler takes care, and the training may go on."""
        former = self._former.get(number)
        if not callable(former) or former is signal.default_int_handler:
            return False
        self.number = 0
        former(number, frame)
        return True


class Interrupt(Signals, Callback):
    """Note a signal when it comes, and act on it where a training can be taken up again.

    That is after a step of the optimizer, in a validation (which is then run once more), between
    analyses, and wherever all is saved. All processes agree on the moment. A handler that was there
    before the training is called after saving.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before = 0
        #: Whether the checkpoint to go on from holds all that was trained.
        self._saved = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen in this process; look after each checkpoint, and between analyses."""
        self.listen()
        # Lightning would take SIGTERM, end without a checkpoint, and, since its handler exchanges
        # something with the other processes, wait for them if they have not got the signal.
        trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Last):
                callback.then = self._after_saving
            elif isinstance(callback, AnalyzeCheckpoints):
                callback.between = self._between_analyses

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on processes wait for each other; there is nothing to save yet."""
        self._saved, self.waits = True, trainer.world_size > 1

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Remember the step, to see whether this batch completes one; it will be to be saved."""
        self._before = trainer.global_step
        self._saved, self.waits = False, True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """After a step."""
        if trainer.global_step != self._before:
            self._look(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """In a validation; several processes do not ask, since their batches differ in number."""
        if trainer.world_size == 1 and self.waits and not trainer.sanity_checking:
            self._look(trainer, validating=True)

    def _after_saving(self, trainer: Trainer) -> None:
        self._saved = True
        self._look(trainer)
        # Until the next step begins, neither an analysis nor a validation need be waited for.
        self.waits = trainer.world_size > 1

    def _between_analyses(self, trainer: Trainer) -> None:
        """Not after a validation that is in no checkpoint: run again, it would count twice."""
        if self._saved or not trainer.validating:
            self._look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is left to save; a signal since the last step still counts."""
        self._saved = True
        self._look(trainer)
        self.waits = False

    def teardown(self, *_: Any, **__: Any) -> None:
        """Listen no longer, unless there is a context that does."""
        if not self._entered:
            self.ignore()

    def on_exception(self, *_: Any) -> None:
        """As `teardown`, which Lightning leaves out then."""
        self.waits = False
        self.teardown()

    def _look(self, trainer: Trainer, validating: bool = False) -> None:
        """Has any process got a signal? Then save what is not, and end, all of them here."""
        number = self._agreed(trainer)
        if not number:
            return
        if not self._saved:
            again = validating or is_validation_due(trainer)
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, Last):
                    callback.save(trainer, validation_follows=again)
        if self.handed_over(number, None):
            return
        self.waits = False
        if trainer.is_global_zero:
            requeue(number)
        raise StoppedBySignal(number, quiet=not trainer.is_global_zero)

    def _agreed(self, trainer: Trainer) -> int:
        if trainer.world_size == 1:
            return self.number
        number = torch.tensor(self.number, device=trainer.strategy.root_device)
        all_reduce(number, op=ReduceOp.MAX)
        return int(number)


def _nothing() -> None:
    """In place of Lightning's handlers."""
