"""Every YAML is composed and instantiated because it is there."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tff.analyses.engine.analysis import Analysis
from tff.comparisons.comparison import Comparison
from tff.detectors.detector import Detector

CONF = Path(__file__).parents[2] / "conf"


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(name, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, ["out=outputs/test", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


@pytest.mark.parametrize("name", options("detector"))
def test_detector(name):
    cfg = composed("train", f"detector={name}", "detector.pretrained=false")
    with torch.device("meta"):  # some take more than a gigabyte
        detector = instantiate(cfg.detector)
    assert isinstance(detector, Detector)
    assert len(detector.channels) > 1000


@pytest.mark.parametrize("name", options("aug"))
def test_augmentation(name):
    import numpy as np

    pipelines = instantiate(composed("train", f"aug={name}", "data.size=32").aug)
    image = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    for split in ("train", "validation"):
        pipeline = pipelines[split]
        pipeline.set_random_seed(1)
        first = pipeline(image=image)["image"]
        pipeline.set_random_seed(1)
        assert first.shape == (32, 32, 3)
        assert first.dtype == np.uint8
        assert np.array_equal(first, pipeline(image=image)["image"])


@pytest.mark.parametrize("name", options("ablation"))
def test_ablation(name):
    cue = instantiate(composed("analyze", f"ablation={name}", "ckpt=x").ablation)
    image = torch.randint(0, 256, (2, 3, 8, 8)) / 255
    assert cue(image).shape == image.shape
    assert cue == instantiate(composed("analyze", f"ablation={name}", "ckpt=x").ablation)
    assert isinstance(cue.cue, str)


@pytest.mark.parametrize("name", options("analysis"))
def test_analysis(name):
    cfg = composed("analyze", f"analysis=[{name}]", "ckpt=x")
    analyses = instantiate(cfg.analysis, _convert_="all")
    assert list(analyses) == [name]
    assert isinstance(analyses[name], Analysis | Comparison)


@pytest.mark.parametrize("name", sorted(set(options("data")) - {"checkpoint", "common"}))
def test_data(name, tmp_path):
    here = "root: ???" in (CONF / "data" / f"{name}.yaml").read_text()
    root = ["data.root=DIR"] if here else []
    data = instantiate(composed("train", f"data={name}", *root).data)
    assert data.augmentation.keys() >= {"train", "validation"}
    root = ["data.root=DIR", "discovery.root=DIR"] if here else []
    cfg = composed("analyze", f"data={name}", f"data@discovery={name}", "ckpt=x", *root)
    assert instantiate(cfg.data).augmentation == instantiate(cfg.discovery).augmentation == {}


@pytest.mark.parametrize("name", options("trainer"))
def test_trainer(name):
    cfg = composed("train", f"trainer={name}")
    assert cfg.trainer._target_ == "pytorch_lightning.Trainer"
    assert cfg.trainer.use_distributed_sampler is False
    if cfg.trainer.accelerator != "gpu":
        instantiate(cfg.trainer, logger=False)


@pytest.mark.parametrize("name", options("callbacks"))
def test_callbacks(name):
    from tff.training.analyze_checkpoints import AnalyzeCheckpoints
    from tff.training.checkpointing import Best

    callbacks = instantiate(composed("train", f"callbacks={name}").callbacks, _convert_="all")
    kinds = [type(callback) for callback in callbacks.values()]
    if AnalyzeCheckpoints in kinds:
        assert kinds.index(Best) < kinds.index(AnalyzeCheckpoints)


@pytest.mark.parametrize("name", options("logger"))
def test_logger(name, tmp_path):
    cfg = composed("train", f"logger={name}", f"out={tmp_path}")
    assert set(instantiate(cfg.logger, _convert_="all")) <= {"csv", "wandb"}


@pytest.mark.parametrize("name", options("experiment"))
def test_experiment(name):
    cfg = composed("train", f"experiment={name}")
    if OmegaConf.is_missing(cfg.data, "root"):
        cfg.data.root = "DIR"
    data = instantiate(cfg.data)
    assert data.batch_size > 0
    assert callable(instantiate(cfg.module))
    assert instantiate(cfg.callbacks, _convert_="all")


@pytest.mark.parametrize("name", options("relevance"))
@pytest.mark.parametrize("subject", options("subject"))
def test_subject(name, subject):
    cfg = composed("analyze", f"relevance={name}", f"subject={subject}", "ckpt=x")
    assert callable(instantiate(cfg.subject))


@pytest.mark.parametrize("name", options("report/protocol"))
def test_protocol(name):
    cfg = composed("analyze", f"report/protocol={name}", "ckpt=x")
    protocol = instantiate(cfg.report.protocol)
    assert protocol.name == name
    assert instantiate(cfg.subject).keywords["scoring"] == protocol
