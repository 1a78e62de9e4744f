import json
from functools import partial

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.metrics import average_precision_score
from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.engine.analysis import run
from tff.analyses.engine.subject import Subject
from tff.analyses.ranking import Ranking
from tff.data.folder import Folder
from tff.detectors.checkpoint import load
from tff.detectors.safe_load import read
from tff.detectors.torchvision_models import torchvision_model
from tff.report.page import write
from tff.training.analyze_checkpoints import AnalyzeCheckpoints
from tff.training.module import UniversalDetector

ANALYSES = {"ranking": Ranking(), "ablation": Ablation(Grayscale())}


def subject(detector, images, **options):
    return Subject.of(detector, images, draws=20, confidence=0.5, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), images=20, size=32)


def fit(root, out, analyse=True, epochs=2, **trainer):
    pl.seed_everything(1, verbose=False)
    data = Folder(root=str(root), batch_size=4, size=32, workers=0)
    module = UniversalDetector(
        tiny.detector(), partial(torch.optim.Adam, lr=1e-3), origin={"seed": 1}
    )
    folder = out / "checkpoints"
    callbacks = [
        ModelCheckpoint(folder, "best", "val/ap", mode="max", enable_version_counter=False),
        ModelCheckpoint(folder, "last", enable_version_counter=False),
    ]
    if analyse:
        callbacks.append(AnalyzeCheckpoints(ANALYSES, subject, 5, str(out / "checkpoints")))
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": epochs, "logger": False}
    trainer = pl.Trainer(
        **(settings | trainer), callbacks=callbacks, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        default_root_dir=out,
    )  # fmt: skip
    trainer.fit(module, data)
    return trainer, module, data


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """One epoch with analysis and a logger: folder, trainer, module and data."""
    out = tmp_path_factory.mktemp("run")
    logger = pl.loggers.CSVLogger(out, name="logs", version="train")
    return out, *fit(root, out, epochs=1, logger=logger)


def test_analysis_leaves_training_bit_identical(root, trained, tmp_path):
    _, _, with_it, _ = trained
    _, without, _ = fit(root, tmp_path, analyse=False, epochs=1)
    for one, other in zip(with_it.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_file_loads_without_code_and_rebuilds(trained):
    out, _, module, _ = trained
    for name in ("best", "last"):
        content = read(out / "checkpoints" / f"{name}.ckpt")
        assert content["tff"] == {"seed": 1}
    weights = content["state_dict"]
    detector = {k: v for k, v in module.state_dict().items() if k.startswith("detector.")}
    assert all(torch.equal(v, weights[k]) for k, v in detector.items())


def test_callback_and_analysis_agree_to_the_last_bit(trained, tmp_path):
    out, _, _, data = trained
    (folder,) = (out / "checkpoints").glob("step*")
    assert folder.name == "step000012"
    detector = tiny.detector()
    weights = read(out / "checkpoints" / "last.ckpt")["state_dict"]
    detector.load_state_dict(
        {k.removeprefix("detector."): v for k, v in weights.items() if k.startswith("detector.")}
    )
    results = run(ANALYSES, subject(detector, data.splits().subsample(5), device="cpu"))
    write(results, tmp_path / "again", {})
    for name in ("ranking", "ablation"):
        one, other = (
            pd.read_csv(f / "tables" / f"{name}.csv").drop(columns="weights")
            for f in (folder, tmp_path / "again")
        )
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    scalars = json.loads((folder / "summary.json").read_text())["scalars"]
    assert scalars["ablation/ap"] == results["ablation"].scalars["ap"]


def test_scalars_reach_the_logger(trained):
    metrics = pd.read_csv(trained[0] / "logs" / "train" / "metrics.csv")
    assert {"ablation/ap_ablated", "ranking/omega_top1", "val/ap"} <= set(metrics)


def test_validation_metrics_are_those_of_scikit_learn(trained):
    _, trainer, module, data = trained
    logits, labels = [], []
    for batch in data.val_dataloader():
        with torch.no_grad():
            logits.append(module.detector.eval()(batch.image.float() / 255))
        labels.append(batch.label)
    logits, labels = torch.cat(logits), torch.cat(labels)
    metrics = trainer.callback_metrics
    assert float(metrics["val/ap"]) == pytest.approx(average_precision_score(labels, logits))
    right = (logits > 0) == labels.bool()
    assert float(metrics["val/accuracy"]) == pytest.approx(right.float().mean())
    assert float(metrics["val/real_accuracy"]) == pytest.approx(right[labels == 0].float().mean())
    assert float(metrics["val/fake_accuracy"]) == pytest.approx(right[labels == 1].float().mean())


@pytest.mark.slow
def test_two_processes_train_and_analyse(root, tmp_path):
    # Spawned processes fail loudly; rank 0 alone writes.
    fit(root, tmp_path / "two", epochs=1, strategy="ddp_spawn", devices=2)
    fit(root, tmp_path / "one", epochs=1)
    weights = read(tmp_path / "two" / "checkpoints" / "last.ckpt")["state_dict"]
    (folder,) = (tmp_path / "two" / "checkpoints").glob("step*")
    detector = tiny.detector()
    detector.load_state_dict(
        {k.removeprefix("detector."): v for k, v in weights.items() if k.startswith("detector.")}
    )
    images = Folder(root=str(root)).splits().subsample(5)
    write(run(ANALYSES, subject(detector, images, device="cpu")), tmp_path / "again", {})
    for name in ("ranking", "ablation"):
        two, one = (
            pd.read_csv(f / "tables" / f"{name}.csv").drop(columns="weights")
            for f in (folder, tmp_path / "again")
        )
        pd.testing.assert_frame_equal(two, one, check_exact=True)


def test_checkpoint_of_a_known_detector_loads_alone(tmp_path):
    target = "tff.detectors.torchvision_models.torchvision_model"
    settings = {"_target_": target, "name": "resnet18", "pretrained": True}
    module = UniversalDetector(torchvision_model("resnet18", False), torch.optim.Adam)
    content = {"state_dict": module.state_dict(), "tff": {"detector": settings}}
    torch.save(content, tmp_path / "a=b (1).ckpt")
    detector = load(tmp_path / "a=b (1).ckpt")
    assert not detector.training
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(detector(image), module.eval()(image))


def test_validation_of_a_bfloat16_training_is_in_float32(root, tmp_path):
    trainer, module, data = fit(root, tmp_path, analyse=False, epochs=1, precision="bf16-mixed")
    assert next(module.detector.parameters()).dtype == torch.float32
    logits, labels = [], []
    with torch.no_grad():
        for batch in data.val_dataloader():
            logits += module.detector.eval()(batch.image.float() / 255).tolist()
            labels += batch.label.tolist()
    logits, labels = torch.tensor(logits), torch.tensor(labels).float()
    loss, rounded = (
        float(torch.nn.functional.binary_cross_entropy_with_logits(z, labels))
        for z in (logits, logits.bfloat16().float())
    )
    assert rounded != pytest.approx(loss, rel=1e-4)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(loss, rel=1e-5)


def test_compiled_training_is_training(root, tmp_path):
    """The same weights up to rounding, under the same names, and a copy that can be analysed."""
    weights = []
    for compile in (False, True):
        torch.manual_seed(3)
        adam = partial(torch.optim.Adam, lr=1e-3, fused=True)
        module = UniversalDetector(tiny.detector(), adam, compile=compile)
        data = Folder(root=str(root), batch_size=8, size=32, workers=0)
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, max_steps=3, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
            limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, data)
        weights.append(module.detector.state_dict())
        images = data.splits().subsample(4)
        found = subject(module.detector, images, device="cpu").evaluate().logits
        assert len(found) == len(images.test)
    plain, compiled = weights
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)
