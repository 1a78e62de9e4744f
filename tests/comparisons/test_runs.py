"""Run folders, and the options that make groups of trainings."""

import pytest

from tff.comparisons.runs import RunConfig, defines_training, find_runs, find_swept_options


def config(*overrides, **values):
    pairs = (option.lstrip("+~").partition("=") for option in overrides)
    return RunConfig(values, {}, {key: value for key, _, value in pairs})


def test_options_that_do_not_define_a_training_are_not_swept():
    runs = [
        config("seed=1"),
        config("seed=2", "resume=auto", "tags=[x]", "analyze=true", 'analyze_options=["k=1"]'),
        config("seed=3", "logger=wandb", "+logger.wandb.notes=n", "callbacks.analyze=null"),
        config("seed=4", "callbacks.analyze.images=4", "ckpt=x"),
    ]
    assert find_swept_options(runs) == []
    assert find_swept_options([*runs, config("seed=1", "data.size=64")]) == ["data.size"]


@pytest.mark.parametrize(
    "option", ["seed=1", "analysis=[ranking]", "callbacks.analyzer=1", "loggers=x", "~callbacks"]
)
def test_options_that_define_a_training(option):
    assert defines_training(option)


@pytest.mark.parametrize("option", ["~callbacks.analyze", "++logger.csv.name=x", "resume", "tags="])
def test_options_that_do_not(option):
    assert not defines_training(option)


def start(folder):
    """A run folder as it is when a training has started."""
    (folder / ".hydra").mkdir(parents=True)


def test_folders_and_patterns(tmp_path):
    folder = tmp_path / "sweep"
    every = [folder / str(i) for i in range(12)]
    for run in every:
        start(run)
    assert find_runs(str(folder)) == every
    assert find_runs(str(folder / "3")) == [folder / "3"]
    assert find_runs(str(folder / "1*")) == [folder / "1", folder / "10", folder / "11"]
    assert find_runs([str(folder / "3"), str(folder), str(folder / "3")]) == [
        folder / "3", *(f for f in every if f.name != "3")
    ]  # fmt: skip
    assert find_runs(str(tmp_path)) == every  # a folder of sweeps
    start(tmp_path / "single[1]")
    assert find_runs(str(tmp_path / "single[1]")) == [tmp_path / "single[1]"]
    # What an analysis left is no training, and a training is not searched for others.
    (tmp_path / "other" / ".hydra-analyze").mkdir(parents=True)
    start(folder / "3" / "below")
    assert len(find_runs(str(tmp_path))) == 13


@pytest.mark.parametrize("runs", [None, "", [], [None], ["", "a"]])
def test_no_runs_are_named(runs):
    with pytest.raises(ValueError, match="analysis=sweep needs the folder of a sweep"):
        find_runs(runs)


def test_runs_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        find_runs(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="no folder matches this pattern"):
        find_runs(str(tmp_path / "no*"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: holds no training"):
        find_runs(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="analysis=sweep needs"):
        find_runs(None)
