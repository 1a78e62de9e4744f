"""A training that hangs in a step can be ended by hand."""

import os
import signal
import time
from types import SimpleNamespace

import pytest

from tff.training.signals import Interrupt


def ended(*pauses):
    """Exit code of a process in a step that gets Ctrl-C, and once more after each pause."""
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with Interrupt(None) as interrupt:
                interrupt.on_train_start(SimpleNamespace(world_size=2), None)
                for pause in (0, *pauses):
                    time.sleep(pause)
                    os.kill(os.getpid(), signal.SIGINT)
        except SystemExit as stopped:
            os._exit(stopped.code)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("pauses", "said"), [((), b""), ((0.1,), b""), ((1.2,), b"\nExiting at once.\n")]
)
def test_a_second_interrupt_ends_at_once_but_its_echo_does_not(pauses, said, capfd):
    """A terminal, and who starts processes, may send the first one twice."""
    assert ended(*pauses) == 130
    told = capfd.readouterr().err.encode()
    assert told.startswith(b"\nStopping after this step; press Ctrl-C again to exit at once.\n")
    assert told.endswith(said)
    assert (b"Exiting at once" in told) == bool(said)
