import os
import signal
import time
from functools import partial

import pytest
import pytorch_lightning as pl
import tiny
import torch

from tff.data.folder import Folder
from tff.training.interrupt import Interrupt
from tff.training.module import UniversalDetector


class Swallow(pl.Callback):
    """A library that catches every exception just when the key is pressed."""

    def __init__(self, hook):
        self.batches = 0
        setattr(self, hook, self.press)

    def press(self, *_):
        self.batches += 1
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        except BaseException:  # as a destructor does
            return


def trainer(*callbacks, **options):
    return pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[Interrupt(), *callbacks],
        use_distributed_sampler=False, **options,
    )  # fmt: skip


@pytest.fixture
def images(tmp_path):
    tiny.tree(tmp_path, images=8, size=32)
    return Folder(root=str(tmp_path), batch_size=4, size=32, workers=0)


def module():
    return UniversalDetector(tiny.detector(), partial(torch.optim.Adam, lr=1e-3), origin={})


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_train_epoch_end", "on_train_start"])
def test_an_interrupt_that_got_lost_ends_the_training(images, hook):
    swallow = Swallow(hook)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit):
            trainer(swallow, max_epochs=50).fit(module(), images)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores further ones
    assert swallow.batches == 1


def test_a_training_leaves_the_handler_as_it_was(images):
    before = signal.getsignal(signal.SIGINT)
    trainer(max_epochs=1).fit(module(), images)
    assert signal.getsignal(signal.SIGINT) is before
