"""One function on all processes: started here, or by what runs a cluster."""

from __future__ import annotations

import logging
import logging.config
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from lightning_fabric import Fabric
from omegaconf import OmegaConf
from torch.distributed import is_available, is_initialized
from torch.multiprocessing.spawn import ProcessExitedException

from tff.distributed import OtherProcessError, place
from tff.errors import MENDABLE, ended, only_gone, readable_errors

T = TypeVar("T")
PATIENCE = 5.0  # seconds in which the process that failed tells why


def launch(trainer: Mapping[str, Any], work: Callable[..., T], *arguments: object) -> T:
    """Call `work(device, *arguments)` on each process; what the first one returns.

    Where there are processes already (after a training, under torchrun or srun), on these.

    Args:
        trainer: `accelerator`, `devices`, `strategy` and `num_nodes`, as Lightning's Trainer takes
            them; all else in it is left alone.
        work: a function of a module, and so are its arguments plain: they may travel.

    Raises:
        SystemExit: on error, told by the process that failed.
    """
    known = ("accelerator", "devices", "num_nodes", "strategy")
    fabric = Fabric(**{key: trainer[key] for key in known if key in trainer} | _by_torchrun())
    if is_available() and is_initialized():
        return _called(fabric, work, arguments, None)
    everywhere: Callable[..., Any] = _called
    try:
        found: T = fabric.launch(everywhere, work, arguments, _logging())
    except ProcessExitedException as error:  # told already, by the process that has ended
        reason = f"process {error.error_index} ended with code {error.exit_code}"
        if error.exit_code < 0:
            print(f"Error: {reason}: killed, perhaps for want of memory", file=sys.stderr)
        raise ended(reason) from None
    return found


def _called(
    fabric: Fabric, work: Callable[..., T], arguments: Sequence[object], log: dict[str, Any] | None
) -> T:
    parent, (rank, _) = os.getppid(), place()
    if rank > 0:
        logging.getLogger("tff").setLevel(logging.ERROR)  # what the first one says is enough
    elif log and not logging.getLogger().handlers:  # a process that has just been started
        logging.config.dictConfig(log)
    with readable_errors():
        try:
            return work(str(fabric.device), *arguments)
        except OtherProcessError as error:  # which names it and its reason
            time.sleep(PATIENCE)  # whoever starts processes ends all when the first one ends
            raise ended(str(error)) from None
        except MENDABLE:
            if rank > 0:  # most errors are met by all processes, and the first one tells of them
                time.sleep(PATIENCE)
                if os.getppid() != parent:
                    raise SystemExit(1) from None
                print(f"Process {rank}:", file=sys.stderr)
            raise
        except RuntimeError as error:
            if only_gone(error):
                time.sleep(PATIENCE)  # the one that is gone tells why, or whoever started it
            raise


def _by_torchrun() -> dict[str, Any]:
    """How many processes torchrun has started; it is not to be told twice."""
    if not {"TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"} <= os.environ.keys():
        return {}
    here, all_of_them = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"devices": here, "num_nodes": all_of_them // here, "strategy": "ddp"}


def _logging() -> dict[str, Any] | None:
    if not HydraConfig.initialized():
        return None
    settings = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    return {str(key): value for key, value in settings.items()} if settings else None  # type: ignore[union-attr]
