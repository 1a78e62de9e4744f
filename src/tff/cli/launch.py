"""One function on all processes: started here, or by a cluster."""

from __future__ import annotations

import logging
import logging.config
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import lightning
from lightning_fabric.strategies.launchers import subprocess_script as fabric_script
from omegaconf import OmegaConf
from pytorch_lightning.strategies.launchers import subprocess_script as trainer_script
from torch.distributed import destroy_process_group, is_available, is_initialized
from torch.multiprocessing.spawn import ProcessExitedException

from tff.cli.run_folder import AnalysisStopped
from tff.distributed import OtherProcessError, get_rank
from tff.errors import USER_ERRORS, exit_error, is_lost_connection, readable_errors, root_cause
from tff.startup import guard_output

#: Below the ephemeral ports of Linux, which start at 32768.
PORTS = range(15_000, 32_000)


def free_port() -> int:
    """Find a free port that the system gives to no connection before the processes meet there.

    Lightning takes any free port, releases it, and listens seconds later, when another job or a
    connection may use it.

    Raises:
        OSError: a hundred ports were in use.
    """
    # Not the generator that the run has seeded: jobs may share the seed.
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port found between {PORTS.start} and {PORTS.stop}")


#: Variables that Lightning leaves in the environment of a process that has started others.
LEFT = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
GRACE = 10.0  # seconds for this process to exit after another one has failed
GOODBYE = 60.0  # seconds for the others to exit after the work is done


@contextmanager
def manage_processes() -> Iterator[None]:
    """Let Lightning start processes, also in jobs of a sweep, and end them with the block."""
    before = {key: os.environ[key] for key in LEFT if key in os.environ}
    scripts: tuple[Any, ...] = (fabric_script, trainer_script)
    originals = [(s._hydra_subprocess_cmd, s._launch_process_observer) for s in scripts]
    started: list[list[subprocess.Popen[bytes]]] = []

    def observe(children: list[subprocess.Popen[bytes]]) -> None:
        started.append(children)
        _Observer(main_pid=os.getpid(), child_processes=children).start()

    for script in scripts:
        # Lightning would repeat the command line, which is that of the whole sweep.
        script._hydra_subprocess_cmd = _command
        script._launch_process_observer = observe
    any_port, lightning.find_free_network_port = lightning.find_free_network_port, free_port
    patience = GOODBYE
    try:
        yield
    except BaseException as error:
        # The others wait for this process, so they are killed. But if one of them is gone, it may
        # be about to print why.
        patience = GRACE if is_lost_connection(root_cause(error)) else 0.0
        if isinstance(error, AnalysisStopped):  # the others store what they have computed
            for child in (child for children in started for child in children):
                child.send_signal(signal.SIGINT)
            patience = GRACE
        _end(started, patience)  # before the group, in which NCCL might wait for them
        raise
    finally:
        for script, (command, observer) in zip(scripts, originals, strict=True):
            script._hydra_subprocess_cmd, script._launch_process_observer = command, observer
        lightning.find_free_network_port = any_port
        if is_available() and is_initialized():
            destroy_process_group()
        _end(started, patience)
        for key in LEFT:
            os.environ.pop(key, None)
        os.environ |= before


class _Observer(fabric_script._ChildProcessObserver):
    """Lightning's observer, which kills this process when another one has failed, but later.

    An error that all processes meet is then printed by this one, and a sweep continues.
    """

    def _terminate_all(self) -> None:
        time.sleep(GRACE)
        if self._child_processes:
            super()._terminate_all()


def _end(started: list[list[subprocess.Popen[bytes]]], patience: float) -> None:
    """Wait for processes, then kill those that are left."""
    ending = [child for children in started for child in children]
    for children in started:
        children.clear()  # the observer then has nothing to observe
    until = time.monotonic() + patience
    for child in ending:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _command(local_rank: int) -> tuple[list[str], str]:
    """Command and working directory of another process of this job."""
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


T = TypeVar("T")
PATIENCE = 5.0  # seconds for the process that failed to print why


def launch(trainer: Mapping[str, Any], work: Callable[..., T], *arguments: object) -> T:
    """Call `work(device, *arguments)` in each process; the value that rank zero returns.

    Processes that exist (after a training, under torchrun or srun) are used, else they are started.

    Args:
        trainer: `accelerator`, `devices`, `strategy` and `num_nodes`, as for Lightning's Trainer;
            other options are ignored.
        work: function of a module; it and its arguments may be pickled.

    Raises:
        SystemExit: on an error, which the process that failed has printed.
    """
    known = ("accelerator", "devices", "num_nodes", "strategy")
    fabric = Fabric(**{key: trainer[key] for key in known if key in trainer} | _torchrun_options())
    if is_available() and is_initialized():
        return _called(fabric, work, arguments, None)
    everywhere: Callable[..., Any] = _called
    try:
        found: T = fabric.launch(everywhere, work, arguments, _logging())
    except ProcessExitedException as error:  # printed by that process
        reason = f"process {error.error_index} exited with code {error.exit_code}"
        if error.exit_code < 0:
            print(f"Error: {reason}: killed, perhaps for lack of memory", file=sys.stderr)
        raise exit_error(reason) from None
    return found


def _called(
    fabric: Fabric, work: Callable[..., T], arguments: Sequence[object], log: dict[str, Any] | None
) -> T:
    guard_output()
    parent, rank = os.getppid(), get_rank()
    if rank > 0:
        logging.getLogger("tff").setLevel(logging.ERROR)  # rank zero logs for all
    elif log and not logging.getLogger().handlers:  # a started process
        logging.config.dictConfig(log)
    with readable_errors():
        try:
            return work(str(fabric.device), *arguments)
        except OtherProcessError as error:  # names that process and its error
            time.sleep(PATIENCE)  # the launcher kills all when the first one exits
            raise exit_error(str(error)) from None
        except USER_ERRORS:
            if rank > 0:  # most errors are met by all processes, and rank zero prints them
                time.sleep(PATIENCE)
                if os.getppid() != parent:
                    raise SystemExit(1) from None
                print(f"Process {rank}:", file=sys.stderr)
            raise
        except RuntimeError as error:
            if is_lost_connection(error):
                time.sleep(PATIENCE)  # the process that is gone, or its launcher, prints why
            raise


def _torchrun_options() -> dict[str, Any]:
    """Options for the processes that torchrun has started; empty without torchrun."""
    if not {"TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"} <= os.environ.keys():
        return {}
    here, all_of_them = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"devices": here, "num_nodes": all_of_them // here, "strategy": "ddp"}


def _logging() -> dict[str, Any] | None:
    if not HydraConfig.initialized():
        return None
    settings = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    return {str(key): value for key, value in settings.items()} if settings else None  # type: ignore[union-attr]
