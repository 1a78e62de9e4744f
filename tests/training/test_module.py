"""A training ends as a success only if it gave a detector, in any precision."""

import json
import shlex
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from tests.helpers import machine_faults, scripts, tiny
from torch import nn

from tff.data.folder import Folder
from tff.detectors.safe_load import read
from tff.training.checkpointing import AtomicCheckpointIO, Best, Last
from tff.training.module import DivergedError, UniversalDetector

ADAM = partial(torch.optim.Adam, lr=1e-3)


def sgd(**options):
    return partial(torch.optim.SGD, **{"lr": 0.1, **options})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of 20 images of each kind for each split."""
    root = tmp_path_factory.mktemp("images")
    for number, split in enumerate(("train", "val", "test")):
        tiny.tree(root / split, generators=("seen",), images=20, seed=number)
    return root


class Broken(UniversalDetector):
    """Its loss, gradient or validation loss is not a number at one step, on one rank."""

    def __init__(self, what, step, rank=0, optimizer=ADAM):
        super().__init__(tiny.detector(), optimizer)
        self.what, self.when, self.where = what, step, rank

    def _is_now(self, what):
        here = self.trainer.global_rank == self.where
        return what == self.what and self.trainer.global_step + 1 == self.when and here

    def _step(self, batch, split):
        loss = super()._step(batch, split)
        return loss * torch.nan if split == "train" and self._is_now("loss") else loss

    def on_before_optimizer_step(self, optimizer):
        if self._is_now("gradient"):
            for parameter in self.detector.parameters():
                parameter.grad.fill_(torch.inf)

    def on_validation_epoch_start(self):
        if self._is_now("validation"):  # a buffer, so that no weight shows it
            self.detector.std.fill_(0)
            self.detector.mean.fill_(0)


def fit(root, out, module, epochs=2, **options):
    pl.seed_everything(1, verbose=False)
    folder = str(out / "checkpoints")
    best = Best(folder, "best", "val/ap", mode="max", enable_version_counter=False)
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": epochs, "logger": False}
    settings |= {"plugins": [AtomicCheckpointIO()], "callbacks": [best, Last(folder)]}
    trainer = pl.Trainer(
        **(settings | options), num_sanity_val_steps=0, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=out,
    )  # fmt: skip
    trainer.fit(module, Folder(root=str(root), batch_size=8, size=32, workers=0))
    return trainer


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("loss", r"the loss of step 7 \(epoch 1\) is not a finite number; lower the learning rate"),
        ("gradient", r"the loss of step 8 \(epoch 1\)"),  # as the weights are none any more
    ],
)
def test_a_training_stops_at_the_first_loss_that_is_no_number(root, tmp_path, what, words):
    with pytest.raises(DivergedError, match=words):
        fit(root, tmp_path, Broken(what, 7))
    for name in ("best", "last"):
        content = read(tmp_path / "checkpoints" / f"{name}.ckpt")
        assert content["global_step"] == 5
        assert all(torch.isfinite(value).all() for value in content["state_dict"].values())


def test_weights_that_are_no_numbers_are_not_saved(root, tmp_path):
    with pytest.raises(DivergedError, match="diverged"):  # at the last step of the second epoch
        fit(root, tmp_path, Broken("gradient", 10))
    assert read(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 5
    with pytest.raises(DivergedError, match=r"a weight after step 5 \(epoch 0\)"):
        fit(root, tmp_path / "no validation", Broken("gradient", 5), limit_val_batches=0)
    assert not list((tmp_path / "no validation").glob("checkpoints/*"))


def test_a_validation_loss_that_is_no_number(root, tmp_path):
    with pytest.raises(DivergedError, match="the validation loss after step 5"):
        fit(root, tmp_path, Broken("validation", 6))
    assert not list(tmp_path.glob("checkpoints/*"))


def test_weights_that_are_no_numbers_at_the_start(root, tmp_path):
    detector = tiny.detector()
    detector.network.fc.weight.data[0, 0] = torch.nan
    with pytest.raises(DivergedError, match="the weights that the training starts from"):
        fit(root, tmp_path, UniversalDetector(detector, ADAM))


def test_gradients_that_a_scaler_discards_stop_nothing(root, tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    plugins = [AtomicCheckpointIO(), MixedPrecision("16-mixed", "cpu", scaler)]
    trainer = fit(root, tmp_path, Broken("gradient", 2), epochs=1, plugins=plugins)
    assert scaler.get_scale() < 2.0**40  # some gradients were discarded
    assert trainer.global_step == 5


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_stop_where_one_has_no_number(root, tmp_path, rank):
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="DivergedError"):
        fit(root, tmp_path, Broken("loss", 4, rank), devices=2, strategy="ddp_spawn")
    assert read(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_weights_of_any_type_are_trained(root, tmp_path, precision):
    trainer = fit(root, tmp_path, UniversalDetector(tiny.detector(), sgd()), 1, precision=precision)
    weights = trainer.lightning_module.detector.network.conv1.weight
    kinds = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
    assert weights.dtype == kinds[precision]
    assert not torch.equal(weights, tiny.detector().network.conv1.weight.to(weights.dtype))
    assert trainer.callback_metrics["train/loss"].dtype in (torch.float32, torch.float64)


def test_adam_in_float16_diverges_and_the_message_names_the_precision(root, tmp_path):
    with pytest.raises(DivergedError, match=r"more bits than trainer\.precision=16-true"):
        fit(root, tmp_path, UniversalDetector(tiny.detector(), ADAM), precision="16-true")


@pytest.fixture
def classes(tmp_path):
    """Folder of a generator whose cats are real and whose dogs are generated."""
    for split in ("train", "val"):
        folder = tmp_path / "classes" / split
        tiny.tree(folder, generators=("seen",), images=8)
        for name, kind in (("cat", "0_real"), ("dog", "1_fake")):
            (folder / "seen" / name).mkdir()
            (folder / "seen" / kind).rename(folder / "seen" / name / kind)
    return tmp_path / "classes"


def test_a_training_of_one_kind_of_images_is_refused(classes):
    data = Folder(root=str(classes), batch_size=8, size=32, classes=["dog"])
    with pytest.raises(ValueError, match=r"all 8 training images are generated; .* both kinds"):
        data.train_dataloader()


def test_a_validation_of_one_kind_says_so_and_chooses_no_checkpoint(
    classes, tmp_path, caplog, monkeypatch
):
    cats = Folder(root=str(classes), batch_size=8, size=32, classes=["cat"]).val_dataloader()
    monkeypatch.setattr(Folder, "val_dataloader", lambda self: cats)
    trainer = fit(classes, tmp_path, UniversalDetector(tiny.detector(), ADAM))
    assert caplog.text.count("the validation saw real images only, so val/ap is unknown") == 1
    metrics = trainer.callback_metrics
    assert torch.isnan(metrics["val/ap"])
    assert torch.isnan(metrics["val/fake_accuracy"])
    assert metrics["val/accuracy"] == metrics["val/real_accuracy"]
    assert [path.name for path in tmp_path.glob("checkpoints/*")] == ["last.ckpt"]


LIMITS = [{"overfit_batches": 1}, {"limit_val_batches": 1}, {"fast_dev_run": True}]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_the_first_batches_hold_both_kinds(root, tmp_path, limit):
    trainer = fit(root, tmp_path, UniversalDetector(tiny.detector(), ADAM), **limit)
    assert not torch.isnan(trainer.callback_metrics["val/ap"])


def test_overfitting_repeats_the_same_batches(root, tmp_path):
    seen = []

    class Watched(UniversalDetector):
        def training_step(self, batch, batch_idx):
            seen.append(batch.index.tolist())
            return super().training_step(batch, batch_idx)

    fit(root, tmp_path, Watched(tiny.detector(), ADAM), overfit_batches=2)
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


def test_a_training_without_a_step_is_no_success(root, tmp_path):
    for limit in ({"max_epochs": 0}, {"max_steps": 0}, {"limit_train_batches": 0}):
        with pytest.raises(ValueError, match="nothing was trained: no step was made with"):
            fit(root, tmp_path, UniversalDetector(tiny.detector(), ADAM), **limit)


class Net(nn.Module):
    """A normalisation of a single pixel."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 2, 32), nn.BatchNorm2d(2), nn.Linear(2, 1)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).flatten(1))


def test_a_batch_of_one_image(root, tmp_path):
    module = UniversalDetector(tiny.Detector(Net()), ADAM)
    with pytest.raises(ValueError, match=r"data\.batch_size=1: batch normalisation"):
        pl.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        ).fit(module, Folder(root=str(root), batch_size=1, size=32))  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "words"),
    [
        (sgd(fast=1), None, r"module\.optimizer: .* 'fast' .*~module\.optimizer\.NAME removes"),
        (sgd(lr=-1), None, r"module\.optimizer: Invalid learning rate: -1"),
        (torch.optim.LBFGS, None, r"module\.optimizer: LBFGS"),
        (sgd(), torch.optim.lr_scheduler.CosineAnnealingLR, r"module\.scheduler: .*'T_max'"),
        (sgd(), torch.optim.lr_scheduler.ReduceLROnPlateau, r"module\.scheduler: ReduceLROnPl"),
    ],
)
def test_what_makes_no_step_is_named_before_the_first(root, tmp_path, optimizer, scheduler, words):
    with pytest.raises(ValueError, match=words):
        fit(root, tmp_path, UniversalDetector(tiny.detector(), optimizer, scheduler))
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_fused_optimizer_that_cannot_clip(root, tmp_path):
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    module = UniversalDetector(tiny.detector(), partial(torch.optim.Adam, fused=True))
    with pytest.raises(ValueError, match=r"gradient_clip_val=1\.0: .*module\.optimizer\.fused=f"):
        fit(root, tmp_path, module, plugins=[plugin], gradient_clip_val=1.0)


def test_a_schedule_gets_the_number_of_steps_only_if_it_takes_it(root, tmp_path):
    schedules = torch.optim.lr_scheduler
    halved = partial(schedules.StepLR, step_size=2, gamma=0.5)
    trainer = fit(root, tmp_path, UniversalDetector(tiny.detector(), sgd(), halved), 1)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**2)
    for options, steps in (({}, 5), ({"total_steps": 9}, 9)):
        cycle = partial(schedules.OneCycleLR, max_lr=0.1, **options)
        trainer = fit(root, tmp_path, UniversalDetector(tiny.detector(), sgd(), cycle), 1)
        assert trainer.lr_scheduler_configs[0].scheduler.total_steps == steps


def train(root, out, *options, check=False):
    return scripts.run(
        "train.py", *machine_faults.TRAIN, f"data.root={root}", "data.workers=0",
        "trainer.max_epochs=1", f"hydra.run.dir={out}", *options, check=check,
    )  # fmt: skip


def test_the_script_says_that_a_training_diverged(root, tmp_path):
    ended = train(root, tmp_path, "module.optimizer.lr=1e12", "trainer.max_epochs=2")
    assert ended.returncode == 1
    assert "Error: the training diverged: the loss of step" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Analyze it" not in ended.stdout
    failure = json.loads((tmp_path / "failed.json").read_text())
    assert failure["type"] == "DivergedError"
    assert not (tmp_path / "finished.json").exists()


def test_the_end_of_a_training_without_validation(root, tmp_path):
    out = tmp_path / "with space and 'quote'"
    ended = train(root, out, "+trainer.limit_val_batches=0", check=True)
    last = out / "checkpoints" / "last.ckpt"
    assert "No best.ckpt: no validation ran with trainer.limit_val_batches=0" in ended.stdout
    assert "metric" not in ended.stdout
    command = ended.stdout.partition("Analyze it: ")[2].splitlines()[0]
    assert shlex.split(command) == ["python", "analyze.py", f"ckpt={last}"]
    assert last.is_file()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("optimized_metric=bogus", "optimized_metric=bogus: expected one of val/ap, val/accuracy"),
        ("optimized_metric=val/loss", "optimized_metric=val/loss: expected one of val/ap"),
        ("callbacks.best.monitor=val_ap", "callbacks.best.monitor=val_ap: expected one of val/ap"),
        ("callbacks.best.monitor=val/loss", "add callbacks.best.mode=min"),
        ("+trainer.logger=false", "trainer.logger=False: cannot be set; choose with logger=none"),
        ("+trainer.limit_val_batches=0.01", "0.01"),
    ],
)
def test_options_that_do_not_fit_end_before_the_first_epoch(root, tmp_path, option, words):
    ended = train(root, tmp_path, option)
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("checkpoints/*"))
