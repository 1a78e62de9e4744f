"""Fit a detector, with progress and a summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from rich.console import Console
from rich.table import Table
from torch.multiprocessing.spawn import ProcessException

from tff.data.datamodule import Data
from tff.training.signals import SIGNALS, Interrupt, StoppedBySignal


def make_progress_bar() -> ProgressBar:
    """A rich bar on a terminal; few plain lines in a log."""
    return RichProgressBar() if sys.stderr.isatty() else TQDMProgressBar(refresh_rate=50)


def fit(
    trainer: Trainer,
    module: LightningModule,
    data: Data,
    ckpt: Path | str | None,
    interrupt: Interrupt | None = None,
) -> dict[str, float]:
    """Train; the last values of all metrics, in each process.

    Args:
        trainer: with the callbacks of the training.
        module: what is trained.
        data: images.
        ckpt: checkpoint to go on from; None starts anew.
        interrupt: the one among the callbacks, where it listens already.

    Raises:
        Stopped: by a signal, after saving.
    """
    if interrupt:
        interrupt.forward_to(trainer.strategy.launcher)
    try:
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    except ProcessException as error:  # of a process that was started for the training
        # One that has not begun yet ends as it happens to, and so may the others then.
        number = interrupt.number if interrupt else 0
        number = number or getattr(error, "exit_code", 0) - 128
        if number in SIGNALS:
            raise StoppedBySignal(number) from None
        raise
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def print_summary(metrics: Mapping[str, float], trainer: Trainer, out: Path) -> None:
    """The summary in the terminal, and how to go on."""
    if not trainer.is_global_zero:
        return
    console = Console()
    table = Table("metric", "at the end", title="Training", box=None, title_justify="left")
    table.columns[1].justify = "right"
    for name, value in sorted(metrics.items()):
        if name.startswith("val/"):
            table.add_row(name, f"{value:.3f}")
    console.print(table)
    best = out / "checkpoints" / "best.ckpt"
    if best.is_file():
        console.print(f"Checkpoint: {best}", soft_wrap=True, markup=False)
        console.print(f"Analyse it: python analyze.py ckpt={best}", soft_wrap=True, markup=False)
