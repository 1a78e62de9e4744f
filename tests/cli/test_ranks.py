import pytest

from tff.cli.run_folder import share_folder

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "job7", "LOCAL_RANK": "0"}
SRUN = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "31"}


def test_one_process_keeps_its_arguments():
    assert share_folder(["a=1"], "train", {}) == ["a=1"]
    assert share_folder(["a=1"], "train", TORCHRUN | {"WORLD_SIZE": "1"}) == ["a=1"]
    # One that Lightning has started.
    assert share_folder(["a=1"], "train", {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}) == ["a=1"]


@pytest.mark.parametrize(
    ("environ", "rank", "folder"),
    [
        (TORCHRUN, "RANK", "outputs/analyze/torchrun-job7"),
        (SRUN, "SLURM_PROCID", "outputs/analyze/srun-31"),
    ],
)
def test_processes_share_a_folder_and_the_first_one_writes(environ, rank, folder):
    first = share_folder(["a=1"], "analyze", environ)
    assert first == ["a=1", f"hydra.run.dir={folder}"]
    other = share_folder(["a=1"], "analyze", environ | {rank: "1"})
    assert other == [*first, "hydra.output_subdir=null", "hydra/job_logging=none"]


@pytest.mark.parametrize("given", ["hydra.run.dir=x", "hydra.sweep.dir=x"])
def test_a_folder_that_is_given_stays(given):
    assert share_folder([given], "train", SRUN) == [given]


def test_without_a_name_for_all_there_is_an_error():
    environ = TORCHRUN | {"TORCHELASTIC_RUN_ID": "none"}
    with pytest.raises(SystemExit, match="need a folder that all of them know"):
        share_folder(["a=1"], "train", environ)
    assert share_folder(["hydra.run.dir=x"], "train", environ) == ["hydra.run.dir=x"]


def test_nodes_that_were_started_by_hand_need_a_folder():
    with pytest.raises(SystemExit, match="need a folder that all of them know"):
        share_folder([], "train", {"NODE_RANK": "1"})
    given = ["hydra.run.dir=x"]
    assert share_folder(given, "train", {"NODE_RANK": "0"}) == given
    assert share_folder(given, "train", {"NODE_RANK": "1"})[-1] == "hydra/job_logging=none"
    # One that Lightning has started there.
    assert share_folder([], "train", {"NODE_RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}) == []


def test_in_a_shell_of_slurm_lightning_starts_processes_itself():
    assert share_folder([], "train", SRUN | {"SLURM_JOB_NAME": "bash"}) == []
