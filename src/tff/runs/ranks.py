"""One folder for processes that were not started by us, each with the same command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

#: Rank, number of processes, and what names the job, by who starts processes. The first process of
#: each node may also be started by hand.
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID"),
    "several nodes": ("NODE_RANK", "", ""),
}

#: A process where one of them is above zero is not the first of a training.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def first(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the first one of its job, or the only one."""
    return not any(int(environ.get(rank, 0)) for rank in RANKS)


def shared(
    arguments: Iterable[str], script: str, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """The arguments with what keeps the processes of one job together.

    Hydra names the folder of a run by the time at which a process starts; a job needs one for all.
    Processes but the first leave no files of their own.

    Args:
        script: `train` or `analyze`, for the name of the folder.

    Raises:
        SystemExit: there is no name that all processes know.
    """
    arguments = list(arguments)
    for launcher, (rank, world, job) in LAUNCHERS.items():
        if rank in environ and _several(environ, world) and not _interactive(environ):
            given = any(a.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for a in arguments)
            name = environ.get(job, "none")
            if not given and name == "none":
                raise SystemExit(
                    f"Error: several processes ({launcher}) need a folder that all of them know: "
                    "pass hydra.run.dir=DIR"
                )
            folder = [] if given else [f"hydra.run.dir=outputs/{script}/{launcher}-{name}"]
            silent = ["hydra.output_subdir=null", "hydra/job_logging=none"]
            return arguments + folder + (silent if int(environ[rank]) > 0 else [])
    return arguments


def _several(environ: Mapping[str, str], world: str) -> bool:
    """Whether there are others; those that Lightning starts on a node are told the folder."""
    return int(environ.get(world, 1)) > 1 if world else "LOCAL_RANK" not in environ


def _interactive(environ: Mapping[str, str]) -> bool:
    """Whether SLURM has given a shell, in which Lightning starts processes itself."""
    return environ.get("SLURM_JOB_NAME") in ("bash", "interactive") and "RANK" not in environ
