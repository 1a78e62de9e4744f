"""Run train.py and analyze.py in the process of the tests, which saves importing torch again."""

import contextlib
import io
import logging
import os
import runpy
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from hydra.core.hydra_config import HydraConfig

ROOT = Path(__file__).parents[2]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Run:
    """Exit code and output of a script."""

    returncode: int
    stdout: str
    stderr: str


def run(name: str, *arguments: str, check: bool = True) -> Run:
    """Run a script of the repository as `python NAME ARGUMENTS`, in this process.

    Logging, signal handlers, environment and the state of Hydra are as before afterwards.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    level, signals = root.level, {number: signal.getsignal(number) for number in _SIGNALS}
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),
        mock.patch.object(sys, "argv", [str(ROOT / name), *arguments]),
        # Hydra takes the tracer that measures coverage for a debugger, and raises errors then.
        mock.patch("hydra._internal.utils.is_under_debugger", lambda: False),
        contextlib.chdir(ROOT), torch.random.fork_rng(devices=[]),
        contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
    ):  # fmt: skip
        try:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):
                err.write(end.code)
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            for handler in set(root.handlers) - set(handlers):
                handler.close()
            root.handlers[:] = handlers
            root.setLevel(level)
            for number, handler in signals.items():
                signal.signal(number, handler)
            HydraConfig.instance().cfg = None
    ended = Run(code, out.getvalue(), err.getvalue())
    assert not check or code == 0, ended.stdout + ended.stderr
    return ended
