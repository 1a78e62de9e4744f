"""The learning rate schedule of the published detectors."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from tff.options import checked, number, one_of, whole
from tff.training.module import METRICS


class Plateau(Callback):
    """Divides the learning rate when the validation accuracy stagnates, and finally stops.

    Wang et al. (CVPR 2020): when `monitor` has not risen by `rise` for `patience` validations, the
    learning rate is divided by ten and the count starts again; training stops when the rate would
    fall below `smallest`.

    Args:
        monitor: logged metric, the larger the better.
        patience: validations to wait for a rise.
        rise: smallest difference that counts as a rise, before and after the first drop.
        smallest: learning rate below which training stops.

    Raises:
        ValueError: an option has an impossible value.
    """

    @checked("callbacks.schedule")
    def __init__(
        self,
        monitor: Annotated[str, one_of(METRICS)] = "val/accuracy",
        patience: Annotated[int, whole(1)] = 5,
        rise: tuple[Annotated[float, number(0)], Annotated[float, number(0)]] = (0.001, 0.002),
        smallest: Annotated[float, number(0)] = 1e-6,
    ) -> None:
        self.monitor, self.patience, self.rise, self.smallest = monitor, patience, rise, smallest
        self.best: float | None = None
        self.waited = self.drops = 0
        self.ended = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.ended:  # before the training was resumed
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None or torch.isnan(value):  # no image of a kind that it needs
            return
        if self.best is None or float(value) >= self.best + self.rise[min(self.drops, 1)]:
            self.best, self.waited = float(value), 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self._drop(trainer)

    def _drop(self, trainer: Trainer) -> None:
        groups = [group for one in trainer.optimizers for group in one.param_groups]
        for group in groups:
            group["lr"] /= 10
        self.best, self.waited, self.drops = None, 0, self.drops + 1
        # 1e-4 / 10 / 10 is not exactly 1e-6.
        if min(group["lr"] for group in groups) < self.smallest * (1 - 1e-9):
            self.ended = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("best", "waited", "drops", "ended")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.waited = state_dict["best"], state_dict["waited"]
        self.drops = state_dict["drops"]
        self.ended = state_dict.get("ended", False)  # older checkpoints lack it
