"""Signals: noted while something has to be completed, else the end of the run."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from tff.training.others import kill_started, trains_elsewhere
from tff.training.requeue import requeue
from tff.training.stopped import SIGNALS, Stopped


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
            raise Stopped(self.number)

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
        elif trains_elsewhere(self.launcher):
            self.launcher.kill(number)  # they save, and their end is seen in `fit`
        elif not self.handed_over(number, frame):
            kill_started()
            if int(os.environ.get("SLURM_PROCID", 0)) == 0:
                requeue(number)
            raise Stopped(number)

    def handed_over(self, number: int, frame: FrameType | None) -> bool:
        """Whether a former handler takes care, and the training may go on."""
        former = self._former.get(number)
        if not callable(former) or former is signal.default_int_handler:
            return False
        self.number = 0
        former(number, frame)
        return True
