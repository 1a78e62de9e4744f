"""A training that was killed anywhere ends as the one that was not."""

from typing import ClassVar

import pytest
import pytorch_lightning as pl
from tests.helpers import resuming, tiny
from tests.helpers.resuming import Kill, same, together, train

from tff.detectors.safe_load import read
from tff.training.checkpointing import Last

#: Moments of a training of 3 epochs with 6 steps and 6 batches of validation each.
MOMENTS = [
    ("on_train_batch_start", 2), ("on_train_batch_end", 1), ("on_train_batch_end", 4),
    ("on_train_batch_end", 6), ("on_validation_start", 1), ("on_validation_batch_start", 3),
    ("on_validation_batch_end", 6), ("on_validation_end", 1), ("on_train_epoch_end", 1),
    ("on_train_epoch_start", 2), ("on_train_batch_end", 7), ("on_validation_batch_end", 8),
    ("on_train_epoch_end", 2), ("on_train_batch_end", 17), ("on_validation_end", 3),
    ("on_train_epoch_end", 3), ("on_train_end", 1),
]  # fmt: skip
#: One for each hook, and before and after the first checkpoint within an epoch.
FAST = [MOMENTS[n] for n in (0, 1, 4, 5, 7, 9, 11, 12, 16)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen",), images=20, size=32)


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """Uninterrupted trainings, made on first use."""
    runs = {}

    def run(**options):
        key = repr(sorted(options.items()))
        if key not in runs:
            out = tmp_path_factory.mktemp("whole")
            runs[key] = out, *train(root, out, steps=None, **options)
        return runs[key]

    return run


def interrupted(root, out, kills, options=None, **only_interrupted):
    """Kill at each of the moments in turn, and resume; what all parts saw, and the metrics."""
    options = options or {}
    last = out / "checkpoints" / "last.ckpt"
    seen = resuming.Seen()
    for kill in (*kills, None):
        ckpt = str(last) if last.is_file() else None
        part, metrics = train(
            root, out, ckpt, kill=kill and Kill(*kill), **options, **only_interrupted
        )
        for name, both in together(seen, part):
            setattr(seen, name, both)
    return seen, metrics


def compare(out, seen, metrics, expected):
    whole_out, whole_seen, whole_metrics = expected
    same(out, whole_out)
    for name in ("rates", "metrics", "losses"):
        assert getattr(seen, name) == getattr(whole_seen, name), name
    for name, value in whole_metrics.items():
        if not name.startswith("train/"):  # of a part of the epoch, where it was interrupted
            assert metrics[name] == value


@pytest.mark.parametrize("schedule", ["plateau", pytest.param("onecycle", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "moment",
    [pytest.param(m, marks=[] if m in FAST else pytest.mark.slow) for m in MOMENTS],
    ids=lambda m: f"{m[0]}-{m[1]}",
)
def test_killed_anywhere(root, whole, tmp_path, moment, schedule):
    expected = whole(schedule=schedule)
    compare(tmp_path, *interrupted(root, tmp_path, [moment], {"schedule": schedule}), expected)


@pytest.mark.parametrize(
    "steps", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (None, 4))]
)
def test_killed_again_and_again(root, whole, tmp_path, steps):
    kills = [("on_train_batch_end", n) for n in (3, 5, 2, 1)] + [("on_validation_batch_end", 2)] * 2
    seen, metrics = interrupted(root, tmp_path, kills, steps=steps)
    compare(tmp_path, seen, metrics, whole())


@pytest.mark.parametrize(
    "options",
    [
        {"check_val_every_n_epoch": 2, "epochs": 4},
        {"val_check_interval": 3},
        {"val_check_interval": 1},
        {"accumulate_grad_batches": 4},
        {"limit_train_batches": 4},
        {"schedule": None},
    ],
    ids=lambda o: next(iter(o)),
)
@pytest.mark.parametrize(
    "kills",
    [
        [("on_train_batch_end", 7), ("on_validation_batch_end", 7), ("on_validation_end", 1)],
        *(
            pytest.param([(hook, count)], marks=pytest.mark.slow)
            for count in (3, 6, 7)
            for hook in ("on_train_batch_end", "on_validation_batch_end", "on_validation_end")
        ),
    ],
)
def test_other_rhythms(root, whole, tmp_path, options, kills):
    compare(tmp_path, *interrupted(root, tmp_path, kills, options), whole(**options))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_prepare_ahead_and_it_does_not_count(root, whole, tmp_path, workers):
    expected = whole()
    kills = [("on_train_batch_end", 4), ("on_train_epoch_end", 1), ("on_validation_batch_end", 2)]
    seen, metrics = interrupted(root, tmp_path, kills, workers=workers)
    compare(tmp_path, seen, metrics, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_has_an_order_of_its_own(root, tmp_path, workers):
    class Rows(pl.Callback):
        """What each step of each epoch is given."""

        seen: ClassVar = {}

        def on_train_batch_start(self, trainer, module, batch, index):
            self.seen.setdefault(trainer.current_epoch, []).append(batch.image.sum().item())

    train(root, tmp_path, workers=workers, callbacks=[Rows()])
    assert len({tuple(sums) for sums in Rows.seen.values()}) == 3


@pytest.mark.slow
def test_two_processes(root, tmp_path):
    two = {"strategy": "ddp_spawn", "devices": 2, "batch_size": 2, "schedule": "onecycle"}
    train(root, tmp_path / "whole", steps=None, **two)
    train(root, tmp_path / "killed", kill=Kill("on_train_batch_end", 9), **two)
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    assert read(last)["global_step"] == 8
    train(root, tmp_path / "killed", str(last), **two)
    same(tmp_path / "killed", tmp_path / "whole")


def test_a_training_that_its_schedule_has_ended_is_not_continued(root, tmp_path):
    last = tmp_path / "checkpoints" / "last.ckpt"
    _, metrics = train(root, tmp_path, epochs=50)
    step = read(last)["global_step"]
    assert step < 6 * 50
    seen, again = train(root, tmp_path, str(last), epochs=50)
    assert not seen.losses
    assert {k: v for k, v in metrics.items() if k.startswith("val/")}.items() <= again.items()


def test_other_images_under_the_same_options_are_refused(root, tmp_path):
    train(root, tmp_path, epochs=1)
    other = tiny.tree(tmp_path / "other", ("seen",), images=21, size=32)
    with pytest.raises(ValueError, match=r"trained on 24 images, and the \d+ .* are different"):
        train(other, tmp_path, str(tmp_path / "checkpoints" / "last.ckpt"), epochs=2)


@pytest.mark.parametrize(("change", "said"), [({"batch_size": 3}, r"data\.batch_size")])
def test_other_batches_within_an_epoch_are_refused(root, tmp_path, change, said):
    train(root, tmp_path, kill=Kill("on_train_batch_end", 3))
    with pytest.raises(ValueError, match=said):
        train(root, tmp_path, str(tmp_path / "checkpoints" / "last.ckpt"), **change)


@pytest.mark.parametrize("options", [{"steps": 0}, {"minutes": -1}])
def test_impossible_options_are_refused(options, tmp_path):
    with pytest.raises(ValueError, match=rf"callbacks\.last\.{next(iter(options))}=.*expected"):
        Last(str(tmp_path), **options)
