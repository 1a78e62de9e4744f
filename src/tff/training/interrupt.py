"""Ctrl-C ends a training, whatever the program is doing when it comes."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Interrupt(Callback):
    """Raise KeyboardInterrupt once more at the next batch, should the first one have got lost.

    Python drops an exception that is raised in a destructor or in the callback of a weak reference,
    and some libraries catch every one: training would go on as if no key had been pressed.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._previous: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen, where Python allows it: in the main thread, unless interrupts are ignored."""
        previous = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(previous):
            self._previous = previous
            signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        self._previous(number, frame)

    def _again(self) -> None:
        if self.pressed:
            raise KeyboardInterrupt

    def on_train_batch_start(self, *_: Any) -> None:
        """Has the interrupt got lost?"""
        self._again()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Has the interrupt got lost?"""
        self._again()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Listen no longer.

        After an error, which skips this, the handler stays and does as the former did.
        """
        if signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, self._previous)
