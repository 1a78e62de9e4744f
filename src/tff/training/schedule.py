"""The plateau schedule of the published detectors."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Plateau(Callback):
    """Divide the learning rate when validation accuracy stands still, and stop in the end.

    Wang et al. (CVPR 2020): when `monitor` has not risen by `rise` (0.001; 0.002 after the first
    drop) for `patience` validations, the learning rate is divided by ten and the count starts anew;
    training stops when the rate would fall below `smallest`.

    Args:
        monitor: a logged metric, the larger the better.
        patience: validations without a rise that are waited for.
        rise: the first rise asked for, and that after a drop.
        smallest: learning rate below which training stops.
    """

    def __init__(
        self,
        monitor: str = "val/accuracy",
        patience: int = 5,
        rise: tuple[float, float] = (0.001, 0.002),
        smallest: float = 1e-6,
    ) -> None:
        self.monitor, self.patience, self.rise, self.smallest = monitor, patience, rise, smallest
        self.best: float | None = None
        self.waited = self.drops = 0
        self.ended = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A training that this schedule had ended, and that is taken up again, is at its end."""
        if self.ended:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the metric once per validation."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"schedule.monitor={self.monitor}: not logged; there are {known}")
        if self.best is None or float(value) >= self.best + self.rise[min(self.drops, 1)]:
            self.best, self.waited = float(value), 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self._drop(trainer)

    def _drop(self, trainer: Trainer) -> None:
        rates = []
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] /= 10
                rates.append(group["lr"])
        self.best, self.waited, self.drops = None, 0, self.drops + 1
        # 1e-4 / 10 / 10 is not exactly 1e-6.
        if min(rates) < self.smallest * (1 - 1e-9):
            self.ended = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "best": self.best,
            "waited": self.waited,
            "drops": self.drops,
            "ended": self.ended,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]
        self.drops = state_dict["drops"]
        self.ended = state_dict.get("ended", False)  # older ones do not say
