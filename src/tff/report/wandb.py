"""Files to Weights & Biases; a network that is away fails nothing."""

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

PATIENCE = 5.0  # seconds; a server that is there answers within one


def is_reachable(url: str, patience: float = PATIENCE) -> bool:
    """Whether anything answers at an http(s) address, be it with an error.

    Proxies are taken from the environment. Asked before the client library of a service, which
    tries again for minutes where nothing answers, or for ever.

    Args:
        url: address of the server.
        patience: seconds to wait for a connection, and again for an answer.
    """
    try:
        urllib.request.urlopen(url, timeout=patience).close()
    except urllib.error.HTTPError:  # not found, not allowed: somebody said so
        return True
    except urllib.error.URLError as error:
        # Certificates may be known to the client library by other ways than to Python.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):  # no answer in time; no address
        return False
    return True


log = logging.getLogger(__name__)


@contextmanager
def tolerate_errors(what: str) -> Iterator[None]:
    """What Weights & Biases fails at is told and goes no further.

    Args:
        what: is done within, for the warning.

    Raises:
        ValueError, TypeError: raised within; not by lost connections, but by a mistake of a caller.
    """
    try:
        yield
    except (ValueError, TypeError):
        raise
    except Exception as error:  # lost connections, processes and timeouts have no common class
        reason = str(error).strip() or type(error).__name__
        log.warning("Weights & Biases: %s failed (%s)", what, reason)


def finish_run(run: Any, code: int = 0) -> None:
    """End a run and wait for what is being sent, as long as its settings say; never fails.

    Args:
        run: of `wandb.init`.
        code: 0 shows it as finished, anything else as failed.
    """
    import wandb  # slow, and needed by this logger only

    ended = False
    with tolerate_errors("ending the run"):
        try:
            run.finish(code)
        except TimeoutError:
            folder = Path(run.settings.sync_dir)
            log.warning("Weights & Biases did not take all in time; later: wandb sync %s", folder)
        ended = True
    if not ended:  # the process behind it is gone; the next run of this one needs another
        with suppress(Exception):
            wandb.teardown()
        wandb.run = None


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

    with tolerate_errors(f"logging the {kind}"):
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
def link_checkpoint(logger: WandbLogger, checkpoint: str) -> None:
    """Say that what follows was made from a checkpoint that the same run has logged.

    Says nothing where that cannot be said: offline, or when the run never logged that checkpoint.
    The artifacts name it in their metadata in any case.

    Args:
        logger: whose run used it.
        checkpoint: its fingerprint, `best.ckpt sha256:0123456789ab`.
    """
    import wandb

    with tolerate_errors("linking the checkpoint"):
        run: Any = logger.experiment
        if run.offline or run.disabled or not is_reachable(run.settings.base_url):
            return
        name = f"checkpoint-{run.id}:{digest_alias(checkpoint)}"
        try:
            run.use_artifact(name, type="checkpoint")
        except (wandb.Error, ValueError) as error:
            log.info("%s: not linked at Weights & Biases (%s)", name, error)


def digest_alias(checkpoint: str) -> str:
    """The alias of a checkpoint's version: the digest in its fingerprint."""
    return checkpoint.rpartition(":")[2]
