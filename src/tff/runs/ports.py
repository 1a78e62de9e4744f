"""Where the processes of a job meet, when several jobs run on one machine."""

from __future__ import annotations

import random
import socket

#: Below those that Linux gives to whoever asks for any (from 32768 on).
PORTS = range(15_000, 32_000)


def free_port() -> int:
    """A free port that nobody else is given before the processes meet there.

    Lightning asks the system for any free one, lets go of it, and listens seconds later, when
    another job or a connection may have got it.

    Raises:
        OSError: a hundred were in use.
    """
    # Not the generator that the seed of the run has set: jobs may share it.
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port found between {PORTS.start} and {PORTS.stop}")
