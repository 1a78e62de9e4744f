"""Files at Weights & Biases: versions of a checkpoint, of a ranking, of a report."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from tff.report.forgiving import forgiven
from tff.report.network import answers

log = logging.getLogger(__name__)


@rank_zero_only
def send(
    logger: WandbLogger,
    kind: str,
    files: Mapping[str, Path],
    metadata: Mapping[str, object],
    aliases: Sequence[str] = (),
    limit: float = float("inf"),
) -> None:
    """Log files as the next version of the artifact KIND-ID, where ID is that of the run.

    They are copied into the folder of the run at once, so that they may change and that a run
    kept offline holds all that it will send.

    Args:
        logger: whose run the artifact belongs to.
        kind: type of the artifact, and the first part of its name.
        files: name within the artifact -> path of a file or folder.
        metadata: what is told of the version.
        aliases: names of the version besides "latest".
        limit: a file of more bytes is not copied; its path and checksum are logged.
    """
    import wandb  # slow, and needed by this logger only

    with forgiven(f"logging the {kind}"):
        run = logger.experiment
        artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind, metadata=dict(metadata))
        with _staged(Path(run.dir).parent):
            for name, path in files.items():
                if path.is_dir():
                    artifact.add_dir(str(path), name=name, skip_cache=True)
                elif path.stat().st_size > limit:
                    artifact.add_reference(path.resolve().as_uri(), name=name)
                else:
                    artifact.add_file(str(path), name=name, skip_cache=True)
            run.log_artifact(artifact, aliases=["latest", *aliases])


@contextmanager
def _staged(folder: Path) -> Iterator[None]:
    """Copies go to a folder of the run, not into the home folder, which may be full or closed."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = before or str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


@rank_zero_only
def use(logger: WandbLogger, checkpoint: str) -> None:
    """Say that what follows was made from a checkpoint that the same run has logged.

    Says nothing where that cannot be said: offline, or when the run never logged that checkpoint.
    The artifacts name it in their metadata in any case.

    Args:
        logger: whose run used it.
        checkpoint: its fingerprint, `best.ckpt sha256:0123456789ab`.
    """
    import wandb

    with forgiven("linking the checkpoint"):
        run: Any = logger.experiment
        if run.offline or run.disabled or not answers(run.settings.base_url):
            return
        name = f"checkpoint-{run.id}:{version(checkpoint)}"
        try:
            run.use_artifact(name, type="checkpoint")
        except (wandb.Error, ValueError) as error:
            log.info("%s: not linked at Weights & Biases (%s)", name, error)


def version(checkpoint: str) -> str:
    """The alias of a checkpoint's version: the digest in its fingerprint."""
    return checkpoint.rpartition(":")[2]
