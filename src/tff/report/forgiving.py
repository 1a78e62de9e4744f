"""A service that fails must not take results with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def forgiven(what: str) -> Iterator[None]:
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


def end(run: Any, code: int = 0) -> None:
    """End a run and wait for what is being sent, as long as its settings say; never fails.

    Args:
        run: of `wandb.init`.
        code: 0 shows it as finished, anything else as failed.
    """
    import wandb  # slow, and needed by this logger only

    ended = False
    with forgiven("ending the run"):
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
