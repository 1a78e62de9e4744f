"""A head is trained on kept features as it would be on images."""

from functools import partial

import albumentations as A
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from tests.helpers import tiny
from torch import nn

from tff.augmentations.compose import Pipeline
from tff.data.folder import Folder
from tff.detectors.detector import Detector
from tff.detectors.safe_load import read
from tff.detectors.timm_models import clip_linear
from tff.training import features
from tff.training.checkpointing import AtomicCheckpointIO, Last
from tff.training.module import UniversalDetector


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of 24 images of each kind for training, 6 for validation."""
    root = tmp_path_factory.mktemp("images")
    for number, (split, images) in enumerate({"train": 24, "val": 6, "test": 1}.items()):
        tiny.tree(root / split, generators=("seen",), images=images, seed=number)
    return root


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(features, "BATCH", 5)
    monkeypatch.setattr(features, "BATCHES", 2)


class Counted(Detector):
    """Counts the images that its tower sees."""

    def __init__(self, seed=0, limit=10**9, trained="head"):
        super().__init__(tiny.detector(seed).network, trained=trained)
        nn.init.zeros_(self.network.fc.weight)
        self.seen, self.limit = 0, limit

    def forward(self, image):
        self.seen += len(image)
        if self.seen > self.limit:
            raise KeyboardInterrupt
        return super().forward(image)


def flips(p=0.5):
    return {"train": Pipeline([A.HorizontalFlip(p=p)]), "validation": None}


def fit(root, out, detector, views=1, epochs=3, p=0.5, ckpt=None, **options):
    data = Folder(
        root=str(root), batch_size=8, size=32, workers=0, views=views, augmentation=flips(p),
        cache=str(out / "cache"),
    )  # fmt: skip
    settings = {"accelerator": "cpu", "devices": 1, "callbacks": [Last(out / "checkpoints")]}
    trainer = pl.Trainer(
        **(settings | options), max_epochs=epochs, num_sanity_val_steps=0, logger=False,
        plugins=[AtomicCheckpointIO()], enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, default_root_dir=out,
    )  # fmt: skip
    module = UniversalDetector(detector, partial(torch.optim.Adam, lr=1e-2))
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    return trainer


def head(detector):
    return torch.cat([p.detach().flatten() for p in detector.network.fc.parameters()])


@pytest.mark.parametrize("views", [1, 2])
def test_the_head_is_the_same_as_of_a_training_on_images(root, tmp_path, views, monkeypatch):
    kept, plain = Counted(), Counted()
    trainer = fit(root, tmp_path, kept, views)
    monkeypatch.setattr(UniversalDetector, "setup", lambda self, stage: None)
    other = fit(root, tmp_path, plain, views)
    assert kept.seen == views * 48 + 12
    assert plain.seen == 3 * (48 + 12)
    assert head(kept).abs().max() > 0.01
    torch.testing.assert_close(head(kept), head(plain), rtol=1e-4, atol=1e-6)
    metrics, others = trainer.callback_metrics, other.callback_metrics
    for name in ("val/loss", "train/loss", "val/ap"):
        torch.testing.assert_close(metrics[name], others[name], rtol=1e-4, atol=1e-6)


def test_features_are_computed_again_only_where_something_changed(root, tmp_path):
    fit(root, tmp_path, Counted(), epochs=1)
    again = Counted()
    fit(root, tmp_path, again, epochs=1)
    assert again.seen == 0
    for changed, options, count in (
        (Counted(seed=1), {}, 60), (Counted(), {"p": 0.25}, 48), (Counted(), {"views": 2}, 96),
    ):  # fmt: skip
        fit(root, tmp_path, changed, epochs=1, **options)
        assert changed.seen == count


def test_a_killed_run_loses_one_part_at_most(root, tmp_path):
    with pytest.raises(SystemExit):  # Lightning's answer to an interrupt
        fit(root, tmp_path, Counted(limit=33))
    rest = Counted()
    fit(root, tmp_path, rest, epochs=1)
    assert rest.seen == 60 - 30  # three parts of ten images were there
    assert len(list((tmp_path / "cache/features").iterdir())) == 2


def test_a_training_that_goes_on_equals_one_that_never_stopped(root, tmp_path):
    whole, first, then = Counted(), Counted(), Counted()
    fit(root, tmp_path / "whole", whole, views=2)
    fit(root, tmp_path, first, views=2, epochs=1)
    last = str(tmp_path / "checkpoints/last.ckpt")
    then.network.conv1.weight.data.zero_()  # the tower is that of the checkpoint, not the one given
    fit(root, tmp_path, then, views=2, ckpt=last)
    assert then.seen == 0
    assert torch.equal(head(then), head(whole))
    weights = read(last)["state_dict"]
    assert torch.equal(weights["detector.network.conv1.weight"], first.network.conv1.weight)


@pytest.mark.parametrize("trained", ["all", "head"])
def test_without_views_or_with_a_trained_tower_images_are_read(root, tmp_path, trained):
    detector = Counted(trained=trained)
    fit(root, tmp_path, detector, views=1 if trained == "all" else None, epochs=2)
    assert detector.seen == 2 * 60
    assert not (tmp_path / "cache/features").exists()


def test_a_head_on_maps_is_refused(root, tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 30), nn.Flatten())
    with pytest.raises(ValueError, match=r"data.views: the last layer of Sequential gets maps"):
        fit(root, tmp_path, Detector(network, trained="head"))


def test_images_that_the_tower_cannot_take_are_refused(root, tmp_path):
    detector = clip_linear("vit_xsmall_patch16_clip_224", False, image_size=64)
    with pytest.raises(ValueError, match=r"data.size: LinearProbe .*32x32.*data.size=64"):
        fit(root, tmp_path, detector)


@pytest.mark.slow
def test_processes_share_the_work(root, tmp_path):
    fit(root, tmp_path, Counted(), views=2, devices=2, strategy="ddp_spawn")
    here = Counted()
    fit(root, tmp_path, here, views=2, epochs=1)
    assert here.seen == 0
    found = [np.load(path) for path in sorted((tmp_path / "cache/features").glob("*.npy"))]
    assert [array.shape for array in found] == [(96, 6), (12, 6)]
