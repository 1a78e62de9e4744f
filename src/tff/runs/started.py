"""Processes that Lightning starts: told the right command, ended with the job, nothing left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning_fabric.plugins.environments import lightning
from lightning_fabric.strategies.launchers import subprocess_script as fabric_script
from pytorch_lightning.strategies.launchers import subprocess_script as trainer_script
from torch.distributed import destroy_process_group, is_available, is_initialized

from tff.errors import itself, only_gone
from tff.runs.ports import free_port

#: What Lightning leaves in the environment of a process that has started others.
LEFT = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
GRACE = 10.0  # seconds in which this process may end by itself after another one has failed
GOODBYE = 60.0  # seconds in which the others may end after the work is done


@contextmanager
def processes() -> Iterator[None]:
    """Within, Lightning may start processes, in the jobs of a sweep too; nothing is left behind."""
    before = {key: os.environ.get(key) for key in LEFT}
    scripts: tuple[Any, ...] = (fabric_script, trainer_script)
    originals = [(s._hydra_subprocess_cmd, s._launch_process_observer) for s in scripts]
    started: list[list[subprocess.Popen[bytes]]] = []

    def observe(children: list[subprocess.Popen[bytes]]) -> None:
        started.append(children)
        _Observer(main_pid=os.getpid(), child_processes=children).start()

    for script in scripts:
        # Lightning repeats the command line, which is that of the whole sweep.
        script._hydra_subprocess_cmd = _command
        script._launch_process_observer = observe
    any_port, lightning.find_free_network_port = lightning.find_free_network_port, free_port
    patience = GOODBYE
    try:
        yield
    except BaseException as error:
        # It has to be told to no one: the others wait for this process. But where one of them is
        # gone, that one may be about to say why.
        patience = GRACE if only_gone(itself(error)) else 0.0
        _end(started, patience)  # before the group: NCCL might wait for them to leave it
        raise
    finally:
        for script, (command, observer) in zip(scripts, originals, strict=True):
            script._hydra_subprocess_cmd, script._launch_process_observer = command, observer
        lightning.find_free_network_port = any_port
        if is_available() and is_initialized():
            destroy_process_group()
        _end(started, patience)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


class _Observer(fabric_script._ChildProcessObserver):
    """Lightning's, which kills this process too when another one has failed, but not at once.

    An error that all processes meet is told by this one, and the other jobs of a sweep go on.
    """

    def _terminate_all(self) -> None:
        time.sleep(GRACE)
        if self._child_processes:
            super()._terminate_all()


def _end(started: list[list[subprocess.Popen[bytes]]], patience: float) -> None:
    """Wait for processes, then kill them."""
    ending = [child for children in started for child in children]
    for children in started:
        children.clear()  # the observer then has nothing left to look at
    until = time.monotonic() + patience
    for child in ending:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _command(local_rank: int) -> tuple[list[str], str]:
    """The command of another process of this job, and where it runs."""
    hydra = HydraConfig.get()
    out, subfolder = Path(hydra.runtime.output_dir), hydra.output_subdir
    conf = next(s.path for s in hydra.runtime.config_sources if s.provider == "main")
    script = Path(conf).parent / f"{hydra.job.name}.py"
    quoted = str(out).replace('"', '\\"')
    return [
        sys.executable,
        str(script),
        *("--config-path", str(out / str(subfolder)), "--config-name", "config"),
        *(f'hydra.run.dir="{quoted}"', "hydra.output_subdir=null", "hydra/job_logging=none"),
    ], hydra.runtime.cwd
