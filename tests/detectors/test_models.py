"""Networks of torchvision and timm by name: one logit an image, and weights to start from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from tff.detectors.detector import IMAGENET_MEAN, IMAGENET_STD, Detector
from tff.detectors.timm_models import timm_model
from tff.detectors.torchvision_models import torchvision_model

TORCHVISION = (
    "resnet18", "resnext50_32x4d", "efficientnet_b0", "efficientnet_v2_s", "vgg11", "vgg11_bn",
    "densenet121", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "mnasnet0_5",
    "shufflenet_v2_x0_5", "squeezenet1_1", "googlenet", "inception_v3", "convnext_tiny", "alexnet",
)  # fmt: skip
TIMM = (
    "resnet50", "tf_efficientnet_b0", "convnext_tiny", "resnet50d", "seresnet50", "regnety_008",
    "mobilenetv3_large_100",
)  # fmt: skip
MODELS = [(torchvision_model, name) for name in TORCHVISION] + [(timm_model, n) for n in TIMM]
IDS = [f"{make.__name__}-{name}" for make, name in MODELS]
SIZE = {"inception_v3": 75}


def classifier(make: Any, name: str) -> dict[str, Tensor]:
    """State of a network of 1,000 classes, each tensor full of one number: small to save."""
    # The options only silence warnings; the auxiliary classifiers stay, as in published files.
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # RegNets compute with tensors while they are built.
    nowhere = contextlib.nullcontext() if "regnet" in name else torch.device("meta")
    library = torchvision.models.get_model if make is torchvision_model else timm.create_model
    with nowhere:
        state = library(name, **options).state_dict()
    return {
        key: torch.tensor(number, dtype=value.dtype).expand(value.shape)
        for number, (key, value) in enumerate(state.items(), start=1)
    }


def saved(state: Any, path: Path) -> str:
    torch.save(state, path)
    return str(path)


def head(detector: Detector) -> dict[str, Tensor]:
    return {k: v for k, v in detector.network.state_dict().items() if v.shape[:1] == (1,)}


@pytest.mark.parametrize(("make", "name"), MODELS, ids=IDS)
def test_detector_returns_one_logit_per_image(make, name):
    detector = make(name, False)
    image = torch.rand(2, 3, SIZE.get(name, 64), SIZE.get(name, 64))
    for mode in (True, False):
        with torch.no_grad():
            logits = detector.train(mode)(image)
        assert logits.shape == (2,)
        assert logits.isfinite().all()
    weight, _bias = head(detector).values()
    assert 0.01 < float(weight.std()) < 0.03


# vgg11 stands for the two others that are as large and slow.
@pytest.mark.parametrize(
    ("make", "name"),
    [pytest.param(*m, id=i) for m, i in zip(MODELS, IDS, strict=True)
     if m[1] not in ("vgg11_bn", "alexnet")],
)  # fmt: skip
def test_pretrained_weights_are_loaded_from_a_file(make, name, tmp_path):
    state = classifier(make, name)
    detector = make(name, saved(state, tmp_path / "weights.pth"))
    own = detector.network.state_dict()
    drawn = head(detector)
    assert len(drawn) == 2
    for key in own.keys() - drawn.keys():
        assert torch.equal(own[key], state[key]), key
    for key, value in drawn.items():
        assert len(state[key]) == 1000
        assert value.abs().max() < 0.2
    other = next(n for n in ("squeezenet1_1", "mnasnet0_5") if n != name)
    with pytest.raises(ValueError, match=r"detector\.pretrained=.*weights\.pth: not weights of"):
        torchvision_model(other, str(tmp_path / "weights.pth"))


def test_weights_of_a_detector_include_the_head(tmp_path):
    source = torchvision_model("mnasnet0_5", False).network.state_dict()
    path = saved(dict(source), tmp_path / "detector.pth")
    own = torchvision_model("mnasnet0_5", path).network.state_dict()
    assert all(torch.equal(own[key], value) for key, value in source.items())


def test_weights_without_a_head_leave_it_random(tmp_path):
    state = classifier(torchvision_model, "resnet18")
    del state["fc.weight"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"1 tensor missing \(fc\.weight\)$"):
        torchvision_model("resnet18", str(tmp_path / "half.pth"))
    del state["fc.bias"]
    own = torchvision_model("resnet18", saved(state, tmp_path / "none.pth")).network.state_dict()
    assert torch.equal(own["conv1.weight"], state["conv1.weight"])


def test_published_names_of_densenet_are_converted(tmp_path):
    # As densenet121-a639ec97.pth names them: `denselayer1.norm.1.weight`.
    state = classifier(torchvision_model, "densenet121")
    path = tmp_path / "weights.pth"
    old = {k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for k, v in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    own = torchvision_model("densenet121", saved(old, path)).network.state_dict()
    assert torch.equal(own["features.norm5.bias"], state["features.norm5.bias"])
    name = "features.denseblock2.denselayer3.conv2.weight"
    assert torch.equal(own[name], state[name])


def test_squeezenet_can_return_a_negative_logit():
    network = torchvision_model("squeezenet1_1", False).network
    nn.init.constant_(network.classifier[1].bias, -3.0)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).item() < 0


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inception_gets_pixels_normalised_as_in_its_training(name):
    detector = torchvision_model(name, False).eval()
    options = {"aux_logits": False, "init_weights": False, "num_classes": 1}
    twin = torchvision.models.get_model(name, transform_input=True, **options).eval()
    twin.load_state_dict(detector.network.state_dict())
    image = torch.rand(2, 3, 96, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = twin((image - mean) / std)[:, 0]
        torch.testing.assert_close(detector(image), expected, rtol=1e-4, atol=1e-5)


def test_normalisation_is_that_of_the_weights():
    for name, value in (("inception_v3", 0.5), ("resnet18.a1_in1k", IMAGENET_MEAN[0])):
        assert timm_model(name, False).mean.flatten()[0] == torch.tensor(value)


@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (torchvision_model, "resnet19", ["resnet18", "Did you mean", "convnext_tiny"]),
        (torchvision_model, "vit_b_17", ["no such network", "vit_b_16", "Available: alexnet"]),
        (torchvision_model, 3, ["expected text"]),
        (timm_model, "resnet50e", ["Did you mean resnet50", r"timm\.list_models\(\)"]),
        (timm_model, "hf-hub:timm/resnet50.a1_in1k", ["no such network"]),
        (timm_model, {"_target_": "os.system"}, ["expected text"]),
        (timm_model, "resnet18.bogus", ["no such weights of resnet18", "a1_in1k"]),
    ],
)
def test_unknown_name_is_refused_with_suggestions(make, name, expected):
    for text in expected:
        with pytest.raises(ValueError, match=text) as caught:
            make(name, False)
        assert str(caught.value).startswith(f"detector.name={name}: ")


def test_downloads_run_no_code(monkeypatch):
    state, asked = classifier(torchvision_model, "resnet18"), []

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append((url, options))
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    own = torchvision_model("resnet18").network.state_dict()
    assert torch.equal(own["conv1.weight"], state["conv1.weight"])
    ((url, options),) = asked
    assert url.endswith("resnet18-f37072fd.pth")  # IMAGENET1K_V1
    assert options["weights_only"] is True

    def from_hub(name: str, **options: Any) -> dict[str, Tensor]:
        asked.append((name, options))
        return state

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", from_hub)
    own = timm_model("resnet18.tv_in1k").network.state_dict()
    assert torch.equal(own["conv1.weight"], state["conv1.weight"])
    name, options = asked[-1]
    assert name == "timm/resnet18.tv_in1k"
    assert options["weights_only"] is True
