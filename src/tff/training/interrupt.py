"""A training that gets a signal ends after the running step, with a checkpoint to go on from."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.distributed import ReduceOp, all_reduce

from tff.training.callback import AnalyzeCheckpoints
from tff.training.last import Last, validation_follows
from tff.training.requeue import requeue
from tff.training.signals import Signals
from tff.training.stopped import Stopped


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
            again = validating or validation_follows(trainer)
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, Last):
                    callback.save(trainer, validation_follows=again)
        if self.handed_over(number, None):
            return
        self.waits = False
        if trainer.is_global_zero:
            requeue(number)
        raise Stopped(number, quiet=not trainer.is_global_zero)

    def _agreed(self, trainer: Trainer) -> int:
        if trainer.world_size == 1:
            return self.number
        number = torch.tensor(self.number, device=trainer.strategy.root_device)
        all_reduce(number, op=ReduceOp.MAX)
        return int(number)


def _nothing() -> None:
    """In place of Lightning's handlers."""
