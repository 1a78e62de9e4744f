"""Artifacts of a run at Weights & Biases; errors of the network are logged and end nothing."""

from __future__ import annotations

import logging
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

log = logging.getLogger(__name__)
PATIENCE = 5.0  # seconds; a server that works answers within one


@contextmanager
def tolerate_errors(action: str) -> Iterator[None]:
    """Log errors of Weights & Biases as warnings.

    ValueError and TypeError are raised: they come from a mistake of the caller, not the network.

    Args:
        action: subject of the warning "... failed (reason)".
    """
    try:
        yield
    except (ValueError, TypeError):
        raise
    except Exception as error:  # lost connections, processes and timeouts have no common class
        reason = str(error).strip() or type(error).__name__
        log.warning("Weights & Biases: %s failed (%s)", action, reason)


def is_reachable(url: str, patience: float = PATIENCE) -> bool:
    """Whether a server answers at an http(s) address, even with an error.

    `wandb` itself would retry for minutes, or forever. Proxies come from the environment.

    Args:
        patience: seconds to wait for a connection, and again for an answer.
    """
    try:
        urllib.request.urlopen(url, timeout=patience).close()
    except urllib.error.HTTPError:  # such as 404: the server has answered
        return True
    except urllib.error.URLError as error:
        # wandb may know certificates that Python does not know.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):  # no answer in time; no address
        return False
    return True


@rank_zero_only
def log_artifact(
    logger: WandbLogger,
    kind: str,
    files: Mapping[str, Path],
    metadata: Mapping[str, object],
    aliases: Sequence[str] = (),
    limit: float = float("inf"),
) -> None:
    """Log files as the next version of the artifact KIND-ID, where ID is that of the run.

    They are copied to the folder of the run at once, since they may change later, and an offline
    run is sent from there.

    Args:
        kind: type of the artifact, and the first part of its name.
        files: name within the artifact -> path of a file or folder.
        aliases: names of the version besides "latest".
        limit: bytes; for a larger file only path and checksum are logged.
    """
    import wandb  # takes seconds, and few runs need it

    with tolerate_errors(f"logging the {kind}"):
        run = logger.experiment
        artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind, metadata=dict(metadata))
        with _stage_in(Path(run.dir).parent):
            for name, path in files.items():
                if path.is_dir():
                    artifact.add_dir(str(path), name=name, skip_cache=True)
                elif path.stat().st_size > limit:
                    artifact.add_reference(path.resolve().as_uri(), name=name)
                else:
                    artifact.add_file(str(path), name=name, skip_cache=True)
            run.log_artifact(artifact, aliases=["latest", *aliases])


@contextmanager
def _stage_in(folder: Path) -> Iterator[None]:
    """Copy to a folder, not to the home folder, which may be full or read-only."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = before or str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


@rank_zero_only
def link_checkpoint(logger: WandbLogger, checkpoint: str) -> None:
    """Mark a checkpoint that the same run has logged as the input of what follows.

    Does nothing offline. The artifacts name the checkpoint in their metadata in any case.

    Args:
        checkpoint: fingerprint, such as `best.ckpt sha256:0123456789ab`.
    """
    run: Any = logger.experiment
    if run.offline or run.disabled or not is_reachable(run.settings.base_url):
        return
    with tolerate_errors("linking the checkpoint"):
        name = f"checkpoint-{run.id}:{checkpoint.rpartition(':')[2]}"
        try:
            run.use_artifact(name, type="checkpoint")
        except ValueError as error:  # the run has not logged this checkpoint
            log.info("Weights & Biases: %s is not linked (%s)", name, error)


def finish_run(run: Any, exit_code: int = 0) -> None:
    """Finish a run; wait for uploads as long as its settings say, and never fail.

    Args:
        exit_code: 0 shows the run as finished, any other number as failed.
    """
    import wandb  # takes seconds, and few runs need it

    with tolerate_errors("finishing the run"):
        try:
            run.finish(exit_code)
        except TimeoutError:
            folder = run.settings.sync_dir
            log.warning("Weights & Biases: not all was sent in time; later: wandb sync %s", folder)
        return
    # Its service has died; the next run of this process needs another one.
    with suppress(Exception):
        wandb.teardown()
    wandb.run = None
