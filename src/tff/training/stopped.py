"""How a training ends that a signal has stopped."""

from __future__ import annotations

import signal

#: Ctrl-C; the end of a job; and what clusters send before the time of a job is up.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(SystemExit):
    """A signal has ended the training; all that matters is saved.

    Args:
        number: of the signal.
        quiet: exit with 0. Who starts processes kills all of them when another one than the first
            ends otherwise.
    """

    def __init__(self, number: int, quiet: bool = False) -> None:
        super().__init__(0 if quiet else 128 + number)
        self.number = number
