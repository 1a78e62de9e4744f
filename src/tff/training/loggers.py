"""Weights & Biases without surprises."""

from __future__ import annotations

import os
from collections.abc import Iterable
from netrc import NetrcParseError, netrc
from urllib.parse import urlsplit

from pytorch_lightning.loggers import Logger, WandbLogger


def weights_and_biases(
    project: str, save_dir: str, tags: list[str], group: str | None
) -> WandbLogger:
    """A logger that never asks: online only for those who have an account or say so.

    WANDB_MODE (online, offline, disabled) decides; without it a configured key means online, and
    none means offline.
    """
    import wandb  # takes seconds, and only those who ask for it need it

    mode = os.environ.get("WANDB_MODE") or ("online" if _has_account() else "offline")
    # The default waits 90 s for a dead network.
    settings = wandb.Settings(silent=True, init_timeout=20)
    os.makedirs(save_dir, exist_ok=True)  # else wandb falls back to a temporary folder
    return WandbLogger(
        project=project, save_dir=save_dir, tags=tags, group=group, mode=mode, settings=settings
    )


def _has_account() -> bool:
    """Whether `wandb login` was run or a key is set; asking wandb itself would set it up."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return bool(os.environ.get("WANDB_API_KEY") or netrc().authenticators(host or ""))
    except (FileNotFoundError, NetrcParseError):
        return False


def finish(loggers: Iterable[Logger]) -> None:
    """End the runs at Weights & Biases, else the next job of a sweep would write into them."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
