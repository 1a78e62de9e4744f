"""Online or offline: what the user said, whether there is an account, and whether it answers."""

from __future__ import annotations

import logging
import os
from netrc import NetrcParseError, netrc
from urllib.parse import urlsplit

from tff.report.wandb import answers

log = logging.getLogger(__name__)

#: Where `wandb` keeps the address of its service.
SERVICE = "WANDB_SERVICE"
# The older names, and those of today.
MODES = {
    "": "online",
    "run": "online",
    "online": "online",
    "shared": "shared",
    "dryrun": "offline",
    "offline": "offline",
    "disabled": "disabled",
}


def mode() -> str:
    """The mode for `wandb.init`, found without asking anybody and within seconds.

    WANDB_MODE decides; without it a configured account means online, and none means offline. Where
    an account is missing or its server does not answer, a run is kept offline whatever was said.

    Raises:
        ValueError: WANDB_MODE is none of its words.
    """
    said = os.environ.get("WANDB_MODE", "")
    if said not in MODES:
        raise ValueError(f"WANDB_MODE={said}: set it to online, offline or disabled, or unset it")
    if MODES[said] in ("offline", "disabled"):
        return MODES[said]
    import wandb  # takes seconds, and only those who ask for it need it

    server = wandb.setup().settings.base_url
    if not _account(server):
        if said:
            log.warning("WANDB_MODE=%s, but there is no account: the run is kept offline.", said)
        return "offline"
    # Before wandb looks whether the key is right, for which it waits much longer.
    if not answers(server):
        log.warning("Weights & Biases: %s does not answer; the run is kept offline.", server)
        return "offline"
    return MODES[said]


def forget_dead_service() -> None:
    """Forget the service of a process that has ended, which `wandb` would fail to reach.

    A process that logs leaves its address to all that it starts.
    """
    if SERVICE not in os.environ:
        return
    import wandb

    try:
        wandb.setup()
    except Exception as error:  # the class is private, and so is that of a broken address
        log.warning("Weights & Biases: %s; another service is started.", error)
        os.environ.pop(SERVICE, None)


def _account(server: str) -> bool:
    """Whether `wandb login` was run for a server, or a key or token is set."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        known = netrc(os.environ.get("NETRC") or None)
    except (OSError, NetrcParseError):
        return False
    return known.authenticators(urlsplit(server).hostname or "") is not None
