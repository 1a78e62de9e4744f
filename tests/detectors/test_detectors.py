from __future__ import annotations

from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from torch import nn

from tff.detectors.detector import IMAGENET_MEAN, IMAGENET_STD, Detector
from tff.detectors.timm_models import efficientnet_b0
from tff.detectors.torchvision_models import torchvision_model
from tff.relevance.lrp import LRP

MAKERS = {
    "resnet50": lambda pretrained: torchvision_model("resnet50", pretrained),
    "resnet18": lambda pretrained: torchvision_model("resnet18", pretrained),
    "efficientnet_b0": efficientnet_b0,
}


@pytest.fixture(scope="module")
def detectors() -> dict[str, Detector]:
    return {name: make(False) for name, make in MAKERS.items()}


@pytest.mark.parametrize(
    ("name", "layers", "channels", "top"),
    [
        ("resnet50", 53, 26560, 114),
        ("resnet18", 20, 4800, 21),
        ("efficientnet_b0", 49, 21008, 27),
    ],
)
def test_number_of_layers_and_channels(name, layers, channels, top, detectors):
    detector = detectors[name]
    assert len(detector.channels.layers) == layers
    assert len(detector.channels) == channels
    assert round(detector.tff_fraction * channels) == top
    assert LRP(detector).channels == detector.channels
    assert LRP(detector).channels.layers == detector.channels.layers


def test_convolutions_in_gates_are_not_feature_maps(detectors):
    assert not any(".se." in layer for layer in detectors["efficientnet_b0"].channels.layers)


@pytest.mark.parametrize("name", MAKERS)
def test_detector_returns_one_logit_per_image(name, detectors):
    detector = detectors[name].eval()
    image = torch.rand(2, 3, 48, 40)
    with torch.no_grad():
        logits = detector(image)
        assert logits.shape == (2,)
        assert detector(image[:1]).shape == (1,)
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        normalised = (image.movedim(1, -1) - mean) / std
        bare = detector.network(normalised.movedim(-1, 1))
    torch.testing.assert_close(logits, bare[:, 0], rtol=1e-4, atol=1e-5)


def test_normalisation_happens_inside():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1, bias=False))
    nn.init.eye_(network[2].weight)
    detector = Detector(network)
    for pixel, expected in ((0.485, 0), (0.485 + 0.229, 1), (0, -0.485 / 0.229)):
        assert detector(torch.full((1, 3, 4, 4), pixel)).item() == pytest.approx(expected, abs=1e-5)
    assert not {"mean", "std"} & set(detector.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_failed_download_raises_a_clear_error(name, monkeypatch):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    with pytest.raises(ValueError, match=r"detector\.pretrained=PATH") as caught:
        MAKERS[name](True)
    assert "no route to host" in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_pretrained_weights_are_loaded_from_a_file(name, tmp_path):
    if name == "resnet18":
        source = torchvision.models.resnet18()
    else:
        source = timm.create_model("tf_efficientnet_b0")
    path = tmp_path / "weights.pth"
    torch.save(source.state_dict(), path)
    own = MAKERS[name](str(path)).network.state_dict()
    for key, value in source.state_dict().items():
        if not key.startswith(("fc.", "classifier.")):
            assert torch.equal(own[key], value), key
    other = next(other for other in ("resnet18", "efficientnet_b0") if other != name)
    with pytest.raises(ValueError, match=r"detector\.pretrained=.*weights\.pth: not weights of"):
        MAKERS[other](str(path))


def test_weights_of_a_wider_network_are_refused(tmp_path):
    path = tmp_path / "wide.pth"
    state = torchvision.models.resnet18().state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(65, 64, 3, 3)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"1 tensor of another shape \(layer1\.0\.conv1"):
        torchvision_model("resnet18", str(path))


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_files_without_weights_are_refused(content, tmp_path):
    path = tmp_path / "wrong.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"wrong\.pth"):
        torchvision_model("resnet18", str(path))


def test_missing_file_of_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        torchvision_model("resnet18", str(tmp_path / "nowhere.pth"))
