"""Random draws within the network, the same for the same step of the same training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class Draws(Callback):
    """Seed PyTorch before each training step from (seed, epoch, batch, process).

    Dropout and stochastic depth then draw the same whether or not the training was interrupted
    before that step, and differently on each process.

    Args:
        seed: of the training, 0 or more.
    """

    def __init__(self, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed={seed}: must be 0 or more")
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before the step."""
        place = [self.seed, trainer.current_epoch, batch_idx, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1))
