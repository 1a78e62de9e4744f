"""Checkpoints are complete or absent, and one that cannot be resumed from is refused."""

import pytest
import pytorch_lightning as pl
import torch

from tff.training.checkpointing import AtomicCheckpointIO
from tff.training.resume import find_newest, require_resumable

GOOD = {
    "state_dict": {"a": torch.arange(4.0)},
    "loops": {},
    "callbacks": {},
    "optimizer_states": [],
    "lr_schedulers": [],
    "global_step": 3,
    "pytorch-lightning_version": pl.__version__,
    "tff": {"data": {"_target_": "x", "seed": 1, "root": "here"}, "detector": {"name": "one"}},
}
NOW = {"data": {"_target_": "x", "seed": 1, "root": "there"}, "detector": {"name": "one"}}


class Module(torch.nn.Module):
    def __init__(self, size=4):
        super().__init__()
        self.a = torch.nn.Parameter(torch.zeros(size))


def save(folder, name="last", **changes):
    content = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    AtomicCheckpointIO().save_checkpoint(content, folder / f"{name}.ckpt")
    return folder / f"{name}.ckpt"


def test_a_write_that_fails_leaves_the_former_file_and_nothing_else(tmp_path, monkeypatch):
    path = save(tmp_path)
    before = path.read_bytes()

    def half(content, file):
        file.write(before[:100])
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save(tmp_path, global_step=4)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_cut_anywhere_is_never_taken(tmp_path, caplog):
    best = save(tmp_path, "best", global_step=2)
    last = save(tmp_path)
    assert find_newest(tmp_path) == last
    whole = last.read_bytes()
    for length in {0, 1, 4, 30, *range(0, len(whole), 97), len(whole) - 22, len(whole) - 1}:
        last.write_bytes(whole[:length])
        caplog.clear()
        assert find_newest(tmp_path) == best, length
        assert f"{last}" in caplog.text
    best.unlink()
    assert find_newest(tmp_path) is None
    assert find_newest(tmp_path / "nowhere") is None


def test_of_several_others_the_one_with_most_steps(tmp_path):
    for name, step in (("best", 2), ("mine", 9), ("zero", 1)):
        save(tmp_path, name, global_step=step)
    save(tmp_path, "bare", global_step=100, optimizer_states=None)
    assert find_newest(tmp_path).name == "mine.ckpt"


def test_the_same_settings_go_on_wherever_the_images_lie(tmp_path):
    require_resumable(save(tmp_path), Module(), NOW)
    require_resumable(
        save(tmp_path, tff=None), Module(), NOW
    )  # a stranger's, with the same tensors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pytorch-lightning_version": "99.1.0"}, r"written by pytorch-lightning 99\.1\.0, and 2"),
        ({"optimizer_states": None}, "holds no optimizer_states"),
        ({"tff": {"data": {"seed": 2}}}, "data.seed=2 then, 1 now"),
        ({"tff": {"detector": {"name": "two"}}}, "detector.name=two then, one now"),
        ({"state_dict": {"b": torch.zeros(1)}}, r"2 of 1 tensors do not fit; a: expected \(4,\)"),
        ({"state_dict": {"a": torch.zeros(5)}}, r"a: expected \(4,\), found \(5,\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, changes, message):
    path = save(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        require_resumable(path, Module(), NOW)
    assert str(path) in str(error.value)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.ckpt"):
        require_resumable(tmp_path / "no.ckpt", Module(), NOW)
