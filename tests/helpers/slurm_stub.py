"""sbatch, srun and sacct on one machine, as far as a job array of several tasks needs them."""

import os
import re
import subprocess
import sys
from pathlib import Path


def sbatch(script):
    """Say the number of the job at once; run the jobs of the array one after the other."""
    print("Submitted batch job 4242")
    sys.stdout.flush()
    # With a pipe to this process left open, it would seem to run until all jobs are done.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen([sys.executable, __file__, "array", script], **quiet)


def array(script):
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", Path(script).read_text(), re.MULTILINE))
    tasks, nodes = int(asked["ntasks-per-node"]), int(asked["nodes"])
    last = int(re.fullmatch(r"0-(\d+)%\d+", asked["array"])[1])
    for number in range(last + 1):
        job = {
            "SLURM_JOB_ID": 4243 + number, "SLURM_ARRAY_JOB_ID": 4242,
            "SLURM_ARRAY_TASK_ID": number, "SLURM_JOB_NAME": asked["job-name"],
            "SLURM_NTASKS": tasks * nodes, "SLURM_NTASKS_PER_NODE": tasks,
            "SLURM_NNODES": nodes, "SLURM_JOB_NUM_NODES": nodes,
            "SLURM_NODELIST": "localhost", "SLURM_JOB_NODELIST": "localhost",
        }  # fmt: skip
        subprocess.run(["bash", script], env={**os.environ, **{k: str(v) for k, v in job.items()}})


def srun(*arguments):
    """The command, once for each task; their output goes where srun sends it."""
    arguments, options = list(arguments), {}
    while arguments[0].startswith("--"):
        option = arguments.pop(0)
        if option != "--unbuffered":
            options[option] = arguments.pop(0)
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    running = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        task = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        out, err = (
            options[key].replace("%A_%a", job).replace("%t", str(rank))
            for key in ("--output", "--error")
        )
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with open(out, "a") as stdout, open(err, "a") as stderr:
            running.append(
                subprocess.Popen(
                    arguments, env={**os.environ, **task}, stdout=stdout, stderr=stderr
                )
            )
    sys.exit(max(process.wait() for process in running))


def sacct(*_):
    print("JobID|State|NodeList")
    for number in range(8):
        print(f"4242_{number}|RUNNING|localhost")


if __name__ == "__main__":
    {"sbatch": sbatch, "array": array, "srun": srun, "sacct": sacct}[sys.argv[1]](*sys.argv[2:])
