"""Ask SLURM to start this job again when its time is up."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Mapping

log = logging.getLogger(__name__)


def requeue(number: int, environ: Mapping[str, str] = os.environ) -> bool:
    """`scontrol requeue` for SIGUSR1 and SIGUSR2 in a job; whether SLURM has agreed.

    SIGTERM means that someone wants the job to end, and a shell that SLURM has given is no job.
    """
    job = environ.get("SLURM_JOB_ID")
    if number not in (signal.SIGUSR1, signal.SIGUSR2) or not job:
        return False
    if environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return False
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        problem = done.stderr.strip() if done.returncode else None
    except OSError as error:
        problem = str(error)
    if problem is None:
        log.warning("job %s is queued again", job)
    else:
        log.error("job %s cannot be queued again (%s): start it with resume=auto", job, problem)
    return problem is None


def requeued(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether SLURM has started this job before."""
    return int(environ.get("SLURM_RESTART_COUNT") or 0) > 0
