"""Fitting a detector with a progress bar, and the summary afterwards."""

from __future__ import annotations

import logging
import math
import re
import shlex
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from rich.console import Console
from rich.table import Table
from torch.multiprocessing.spawn import ProcessException

from tff.data.datamodule import Data
from tff.training.signals import SIGNALS, Interrupt, StoppedBySignal


class SilenceLightning(Callback):
    """Drops advertisements and warnings of Lightning's that no user of a training can act on.

    In this process, and in those that Lightning spawns, from the moment at which they unpickle it.
    """

    def __init__(self) -> None:
        logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_useful)
        for message in (
            r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
            r"You have overridden `on_after_batch_transfer` in `LightningModule`",  # as intended
            r"Found \d+ module\(s\) in eval mode",  # those of a frozen tower
            r"Checkpoint directory .* exists and is not empty",  # of a run that is resumed
        ):
            warnings.filterwarnings("ignore", message=message)

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


def _is_useful(record: logging.LogRecord) -> bool:
    noise = r"💡|TPU available: False|Loading `train_dataloader` to estimate"
    return not re.match(noise, record.getMessage())


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
    """Train a module; the last values of all metrics, on all ranks.

    Args:
        trainer: with all callbacks.
        ckpt: checkpoint to resume from; None: a new training.
        interrupt: the one among the callbacks, if any.

    Raises:
        StoppedBySignal: after saving.
    """
    if interrupt:
        interrupt.forward_to(trainer.strategy.launcher)
    try:
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    except ProcessException as error:  # of a spawned process
        # A process that gets the signal before it listens exits in another way.
        number = interrupt.number if interrupt else 0
        number = number or getattr(error, "exit_code", 0) - 128
        if number in SIGNALS:
            raise StoppedBySignal(number) from None
        raise
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def print_summary(metrics: Mapping[str, float], trainer: Trainer, out: Path) -> None:
    """Print the last validation metrics, the best checkpoint and the command that analyzes it.

    Where no metric chose a checkpoint, the last one, and why.
    """
    if not trainer.is_global_zero:
        return
    console = Console()
    table = Table("metric", "at the end", title="Training", box=None, title_justify="left")
    table.columns[1].justify = "right"
    for name, value in sorted(metrics.items()):
        if name.startswith("val/"):
            table.add_row(name, "unknown" if math.isnan(value) else f"{value:.3f}")
    if table.row_count:
        console.print(table)
    best, last = (out / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    if not best.is_file():
        console.print(f"No best.ckpt: {_explain_no_best(metrics, trainer)}", soft_wrap=True)
    if (shown := best if best.is_file() else last).is_file():
        command = shlex.join(["python", "analyze.py", f"ckpt={shown}"])
        console.print(f"Checkpoint: {shown}", soft_wrap=True, markup=False, highlight=False)
        console.print(f"Analyze it: {command}", soft_wrap=True, markup=False, highlight=False)


def _explain_no_best(metrics: Mapping[str, float], trainer: Trainer) -> str:
    monitors = [getattr(c, "monitor", None) for c in trainer.checkpoint_callbacks]
    if trainer.fast_dev_run or not any(monitors):  # type: ignore[attr-defined]
        return "nothing writes it with trainer.fast_dev_run or callbacks.best=null"
    if unknown := [monitor for monitor in monitors if monitor in metrics]:
        return f"{unknown[0]} was unknown in each validation"
    limits = ", ".join(
        f"trainer.{name}={getattr(trainer, name)}"
        for name in (
            "limit_val_batches", "check_val_every_n_epoch", "val_check_interval", "max_epochs",
            "max_steps",
        )
    )  # fmt: skip
    return f"no validation ran with {limits}"
