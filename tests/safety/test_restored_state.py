"""A checkpoint from which a training is resumed names no file to remove, write or upload."""

from __future__ import annotations

import copy
import operator
import shutil
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers import tiny
from tests.helpers.resuming import Kill, same, train

from tff.detectors.safe_load import read
from tff.training.checkpointing import AtomicCheckpointIO
from tff.training.restore import _fit_optimizer, select_restorable
from tff.training.resume import find_newest, require_resumable
from tff.training.wandb_logger import RECORD, read_record

SAVER = (
    "ModelCheckpoint{'monitor': 'val/loss', 'mode': 'min', 'every_n_train_steps': 0, "
    "'every_n_epochs': 1, 'train_time_interval': None}"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen",), images=8)


@pytest.fixture(scope="module")
def stopped(root, tmp_path_factory):
    """A run that was stopped in its second epoch."""
    out = tmp_path_factory.mktemp("stopped")
    train(root, out, schedule="onecycle", kill=Kill("on_train_batch_end", 3))
    return out


@pytest.fixture
def content(stopped) -> dict[str, Any]:
    return copy.deepcopy(read(stopped / "checkpoints" / "last.ckpt"))


@pytest.fixture
def victim(tmp_path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    (folder / "other.ckpt").write_text("years of training")
    return folder


def is_whole(victim: Path) -> bool:
    return sorted(path.name for path in victim.iterdir()) == ["other.ckpt", "thesis.txt"]


FORMS = ["{}", "local://{}", "file://{}", "{}/other.ckpt", "local://{}/other.ckpt"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("here", [True, False], ids=["in the run", "elsewhere"])
def test_no_path_of_the_file_is_removed(form, here, content, stopped, root, victim, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    state, path = content["callbacks"][SAVER], form.format(victim)
    bad = torch.tensor(1e9)  # any next checkpoint is better
    state |= {"best_model_score": bad, "current_score": bad, "kth_value": bad}
    state |= {"dirpath": str(run / "checkpoints"), "last_model_path": path}
    state |= {"best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: bad}}
    ckpt = run / "checkpoints" / "last.ckpt" if here else tmp_path / "stranger.ckpt"
    torch.save(content, ckpt)
    if path.endswith(".ckpt"):
        train(root, run, str(ckpt), schedule="onecycle")
    else:
        with pytest.raises(ValueError, match=rf"{ckpt.name}: its entry ModelCheckpoint.* holds '"):
            train(root, run, str(ckpt), schedule="onecycle")
    assert is_whole(victim)


def test_a_file_that_is_not_in_the_folder_is_not_named_by_the_state(content, tmp_path):
    for name in ("/home/me/x.ckpt", "s3://bucket/x.ckpt", "..\\..\\x.ckpt", "../../x.ckpt"):
        state = content["callbacks"][SAVER]
        state |= {"best_k_models": {name: 1.0}, "kth_best_model_path": name, "dirpath": "/home"}
        found = select_restorable(content, tmp_path / "last.ckpt")["callbacks"][SAVER]
        here = str(tmp_path / "x.ckpt")
        assert (found["kth_best_model_path"], found["dirpath"]) == (here, str(tmp_path))
        assert list(found["best_k_models"]) == [here]


def test_the_entries_of_old_lightning_versions_are_not_restored(content, tmp_path, victim):
    content |= {"checkpoint_callback_best_model_path": str(victim), "hyper_parameters": {"x": 1},
                "hparams_name": "x", "datamodule_hyper_parameters": {"root": "/"},
                "Folder": {"root": "/"}, "tff": {"data": {"root": "/"}}}  # fmt: skip
    found = select_restorable(content, tmp_path / "a.ckpt")
    assert found.keys() <= {
        "state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers", "MixedPrecision",
        "tff_progress", "epoch", "global_step", "pytorch-lightning_version",
    }  # fmt: skip
    content["pytorch-lightning_version"] = "0.9.0"
    with pytest.raises(ValueError, match=r"a\.ckpt: its entry pytorch-lightning_version"):
        select_restorable(content, tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "state",
    [
        {"path": "/home/me"}, {"files": ["s3://x"]}, {"a": {"b": ("x.ckpt",)}}, {"a": b"x"},
        {"/home/me: x": 1}, {"a": {"..\\x": 1}},
    ],
)  # fmt: skip
def test_other_callbacks_are_given_no_text(state, content, tmp_path):
    content["callbacks"]["Stranger"] = state
    with pytest.raises(ValueError, match=r"a\.ckpt: its entry Stranger holds "):
        select_restorable(content, tmp_path / "a.ckpt")


def test_only_single_checkpoints_are_removed(victim, tmp_path):
    files = AtomicCheckpointIO()
    link = tmp_path / "link.ckpt"
    link.symlink_to(victim)
    for path in (victim, victim / "thesis.txt", f"file://{victim}/other.ckpt", link):
        files.remove_checkpoint(path)
    assert is_whole(victim)
    assert not link.is_symlink()
    files.remove_checkpoint(victim / "other.ckpt")
    assert not (victim / "other.ckpt").exists()


LOOP = ("loops", "fit_loop")
#: An entry, what stands there, and whether the training goes on with what it has itself.
CHANGES: dict[str, tuple[tuple[Any, ...], Any, bool]] = {
    "a method of a schedule": (("lr_schedulers", 0, "step"), 1, True),
    "the optimizer of a schedule": (("lr_schedulers", 0, "optimizer"), "x", True),
    "a method of a counter": (
        (*LOOP, "epoch_progress", "current", "increment_ready"), 1, True
    ),
    "a part of a counter": ((*LOOP, "epoch_progress"), {"a": 1}, True),
    "text in a counter": ((*LOOP, "epoch_progress", "total", "ready"), "x", False),
    "a list as a counter": ((*LOOP, "epoch_progress", "total", "ready"), [1], False),
    "an endless number": ((*LOOP, "epoch_progress", "total", "ready"), 10**40, False),
    "another schedule": (("lr_schedulers", 0, "_anneal_func_type"), "linear", False),
    "rates for other groups": (("lr_schedulers", 0, "base_lrs"), [1.0, 2.0], False),
    "text as a rate": (("optimizer_states", 0, "param_groups", 0, "lr"), "x", False),
    "no optimizer": (("optimizer_states",), [], False),
    "an optimizer of no form": (("optimizer_states", 0), [1], False),
    "too few parameters": (("optimizer_states", 0, "param_groups", 0, "params"), [0], False),
    "another kind of optimizer": (
        ("optimizer_states", 0, "param_groups", 0, "amsgrad"), True, False
    ),
    "a momentum of another shape": (
        ("optimizer_states", 0, "state", 0, "exp_avg"), torch.zeros(1), False
    ),
    "a momentum without numbers": (
        ("optimizer_states", 0, "state", 1, "exp_avg"), torch.zeros(1).expand(6), False
    ),
    "a momentum that is missing": (("optimizer_states", 0, "state", 1), {"step": 1.0}, False),
    "a parameter that is not there": (("optimizer_states", 0, "state", 99), {}, False),
    "a tensor as callback": (("callbacks", "Plateau"), torch.zeros(2), False),
    "text as an epoch": (("epoch",), "x", False),
    "text as a step": (("global_step",), "x", False),
    "no version": (("pytorch-lightning_version",), "x", False),
    "text as a metric": (("tff_progress", "metrics", "val/ap"), "x", False),
    "text as a number of images": (("tff_progress", "images", "count"), "x", False),
    "text as weights": (("state_dict", "x"), "x", False),
    "a saver without a form": (("callbacks", SAVER), {"a": 1}, True),
    "files that contradict each other": (("callbacks", SAVER, "kth_best_model_path"), "", False),
    "a list as a score": (("callbacks", SAVER, "best_model_score"), [1], False),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_what_no_training_writes_is_refused_or_ignored(what, content, root, tmp_path):
    (*way, last), value, goes_on = CHANGES[what]
    reduce(operator.getitem, way, content)[last] = value
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    if goes_on:
        try:
            train(root, tmp_path / "run", str(path), schedule="onecycle")
        except ValueError as error:
            assert "Tried to step" in str(error)  # the counter starts again, the schedule does not
        return
    with pytest.raises(ValueError, match=r"last\.ckpt: "):
        train(root, tmp_path / "run", str(path), schedule="onecycle")


@pytest.mark.parametrize("change", [{"global_step": "x"}, {"pytorch-lightning_version": "x"}])
def test_a_malformed_checkpoint_is_passed_over(change, content, tmp_path, caplog):
    torch.save(content | change, tmp_path / "last.ckpt")
    assert find_newest(tmp_path) is None
    assert "last.ckpt: its entry" in caplog.text
    with pytest.raises(ValueError, match=r"last\.ckpt: its entry"):
        require_resumable(tmp_path / "last.ckpt", torch.nn.Linear(1, 1), {})


def test_a_run_that_was_moved_keeps_its_best_checkpoint(root, stopped, tmp_path):
    """The folder in the file is the former one; the scores count all the same."""
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    train(root, whole, schedule="onecycle")
    shutil.copytree(stopped, moved)
    train(root, moved, str(moved / "checkpoints" / "last.ckpt"), schedule="onecycle")
    same(moved, whole)
    saver = read(moved / "checkpoints" / "last.ckpt")["callbacks"][SAVER]
    assert saver["best_model_path"] == str(moved / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize(
    "change",
    [{"id": "../../x"}, {"id": "a b"}, {"project": "/etc"}, {"entity": "https://x.org"},
     {"group": "a/../b"}],
)  # fmt: skip
def test_the_record_of_a_run_names_no_path_and_no_address(change, tmp_path):
    import json

    record = {"id": "ab12", "project": "tff", "entity": "me", "group": "seeds 1-3"}
    (tmp_path / RECORD).write_text(json.dumps(record))
    assert read_record(tmp_path) == record
    (tmp_path / RECORD).write_text(json.dumps(record | change))
    with pytest.raises(ValueError, match=r"wandb-run\.json: does not name a run"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax", "Rprop",
     "ASGD", "Adafactor", "LBFGS"],
)  # fmt: skip
def test_the_state_of_every_optimizer_is_restored_as_it_is(name):
    def make() -> torch.optim.Optimizer:
        weights = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2))]
        return getattr(torch.optim, name)(weights, lr=0.1)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = sum((p**2).sum() for p in optimizer.param_groups[0]["params"])
        total.backward()
        return total

    optimizer = make()
    for _ in range(3):
        optimizer.step(loss)
    state = optimizer.state_dict()
    assert repr(_fit_optimizer(make(), state, "a.ckpt")) == repr(dict(state))
