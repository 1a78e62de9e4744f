"""State dicts of others: whose they are, and their names here."""

from __future__ import annotations

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from tests.helpers import golden_formula as formula
from torch import Tensor

from tff.detectors.checkpoint import load
from tff.detectors.state_dicts import recognise
from tff.detectors.timm_models import efficientnet_b0

RESNETS = [n for n in torchvision.models.list_models(module=torchvision.models) if "resne" in n]


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_are_recognised(name):
    with torch.device("meta"):
        weights = torchvision.models.get_model(name, num_classes=1).state_dict()
    assert recognise({"": weights}, "a.pth")["name"] == name
    fewer = {k: v for k, v in weights.items() if not k.startswith("layer3.1.")}
    with pytest.raises(ValueError, match=r"a\.pth: unknown .*like a ResNet of .* blocks, width"):
        recognise({"": fewer}, "a.pth")


@pytest.fixture(scope="module")
def authors() -> dict[str, Tensor]:
    """EfficientNet-B0 by the names of efficientnet_pytorch."""
    network = formula.fill(efficientnet_b0(False).network, 3)
    return {
        formula.canonical_name(key, "timm_efficientnet"): value
        for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("wrap", ["bare", "model", "parallel", "parallel model", "safetensors"])
def test_efficientnet_of_the_authors_is_recognised(wrap, authors, tmp_path):
    path = tmp_path / ("a.safetensors" if wrap == "safetensors" else "a.pth")
    weights = {("module." if "parallel" in wrap else "") + k: v for k, v in authors.items()}
    if wrap == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"model": weights, "total_steps": 1} if "model" in wrap else weights, path)
    assert "_blocks.0._expand_conv.weight" not in authors
    found = load(path)
    assert found.tff_fraction == 27 / 21008
    own = found.network.state_dict()
    assert len(own) == len(authors)
    for key, value in own.items():
        assert torch.equal(authors[formula.canonical_name(key, "timm_efficientnet")], value), key


def test_efficientnet_with_names_of_timm_is_recognised(tmp_path):
    made = efficientnet_b0(False).eval()
    torch.save(made.network.state_dict(), tmp_path / "a.pth")
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "a.pth")(image), made(image))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("_blocks.3._bn2.bias"), r"1 tensor missing \(blocks\.2\.0\.bn3\.bias\)"),
        (lambda w: w.update(_odd=torch.zeros(2)), r"1 tensor unknown \(_odd\)"),
        (
            lambda w: w.update(
                {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
            ),
            "is an ImageNet classifier with 1,000 outputs",
        ),
        (lambda w: w.pop("_blocks.3._project_conv.weight"), "does not fit .*load"),
    ],
)
def test_faulty_efficientnet_of_the_authors_is_refused(change, message, authors, tmp_path):
    weights = dict(authors)
    change(weights)
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a.pth")


def test_larger_efficientnet_is_loaded_by_its_settings(tmp_path):
    import timm

    network = timm.create_model("tf_efficientnet_b3", num_classes=1)
    own, place = network.state_dict(), {}
    theirs = {}
    for key, value in own.items():
        if key.startswith("blocks."):
            stage, index = key.split(".")[1:3]
            block = place.setdefault((stage, index), len(place))
            name = formula.canonical_name(key, "timm_efficientnet").split(".", 2)[2]
            theirs[f"_blocks.{block}.{name}"] = value
        else:
            theirs[formula.canonical_name(key, "timm_efficientnet")] = value
    torch.save({"model": theirs}, tmp_path / "b3.pth")
    with pytest.raises(ValueError, match=r"does not fit .*efficientnet_b0.*load"):
        load(tmp_path / "b3.pth")
    settings = {"_target_": "tff.detectors.timm_models.timm_model", "name": "tf_efficientnet_b3"}
    found = load(tmp_path / "b3.pth", settings).network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in own.items())
