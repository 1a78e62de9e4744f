"""Which options make groups of trainings."""

import pytest

from tff.comparisons.runs import RunConfig, defines_training, find_swept_options


def settings(*overrides, **config):
    pairs = (option.lstrip("+~").partition("=") for option in overrides)
    return RunConfig(config, {}, {key: value for key, _, value in pairs})


def test_trainings_that_differ_in_what_is_no_part_of_them_are_one_group():
    runs = [
        settings("seed=1"),
        settings("seed=2", "resume=auto", "tags=[x]", "analyze=true", 'analyze_options=["k=1"]'),
        settings("seed=3", "logger=wandb", "+logger.wandb.notes=n", "callbacks.analyze=null"),
        settings("seed=4", "callbacks.analyze.images=4", "ckpt=x"),
    ]
    assert find_swept_options(runs) == []
    assert find_swept_options([*runs, settings("seed=1", "data.size=64")]) == ["data.size"]


@pytest.mark.parametrize(
    "option", ["seed=1", "analysis=[ranking]", "callbacks.analyzer=1", "loggers=x", "~callbacks"]
)
def test_what_is_part_of_a_training(option):
    assert defines_training(option)


@pytest.mark.parametrize("option", ["~callbacks.analyze", "++logger.csv.name=x", "resume", "tags="])
def test_what_is_not(option):
    assert not defines_training(option)
