from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tff.detectors.checkpoint import load, origin_of
from tff.detectors.detector import Detector
from tff.detectors.torchvision_models import torchvision_model

TARGET = "tff.detectors.torchvision_models.torchvision_model"
SETTINGS = {"_target_": TARGET, "name": "resnet18", "pretrained": True}


@pytest.fixture(scope="module")
def detector() -> Detector:
    detector = torchvision_model("resnet18", False)
    detector.network.bn1.running_mean.normal_()
    return detector.eval()


@pytest.fixture
def weights(detector) -> dict[str, Tensor]:
    return dict(detector.network.state_dict())


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {
            "state_dict": prefixed(w, "detector.network."),
            "tff": {"detector": SETTINGS, "data": {"root": "x"}, "seed": 3},
            "optimizer_states": [{"lr": 1.0}],
        },
        lambda w: {"model": w, "optimizer": {"state": {}}, "total_steps": 7},
        lambda w: w,
        lambda w: prefixed(w, "module."),
        lambda w: {"model": prefixed(w, "module.")},
        lambda w: {"state_dict": prefixed(w, "network.")},
    ],
    ids=["own", "cnndetection", "bare", "parallel", "parallel model", "network"],
)
def test_known_formats_of_checkpoints_are_loaded(wrap, weights, detector, tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(wrap(weights), path)
    found = load(path)
    assert not any(module.training for module in found.modules())
    state = found.network.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(found(image), detector(image))


def test_safetensors_files_are_loaded(weights, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(weights, path)
    state = load(str(path)).network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items())


def test_the_origin_holds_the_settings_of_the_run():
    origin = {"detector": SETTINGS, "data": {"root": "x"}, "seed": 3}
    assert origin_of({"state_dict": {}, "tff": origin}, "own.ckpt") == origin
    assert origin_of({"model": {}}, "other.ckpt") == {}


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, {"model": {"note": "empty"}}, {3: torch.zeros(1), "a": 1}]
)
def test_file_without_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="holds no tensors"):
        load(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "os.system", "command": "touch {}"},
        {"_target_": "pathlib.Path.touch", "_args_": ["{}"]},
        SETTINGS | {"name": {"_target_": "os.system", "command": "touch {}"}},
        SETTINGS | {"name": [{"_target_": "os.system", "command": "touch {}"}]},
        # Of other packages, though reached through a module of ours.
        {"_target_": "tff.detectors.detector.torch.save", "obj": 1, "f": "{}"},
        SETTINGS | {"name": {"_target_": "tff.detectors.detector.torch.save", "obj": 1, "f": "{}"}},
    ],
)
def test_foreign_targets_are_refused(settings, tmp_path):
    path, witness = tmp_path / "foreign.ckpt", tmp_path / "ran"

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(value) for value in node]
        return node.format(witness) if isinstance(node, str) else node

    content = {"state_dict": {"a": torch.zeros(1)}, "tff": {"detector": filled(settings)}}
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"foreign\.ckpt"):
        load(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "said",
    [
        3,
        {"detector": SETTINGS | {"bogus": 1}},
        {"detector": {"name": "resnet18"}},
        {"detector": SETTINGS | {3: 4}},
        {"detector": TARGET},
        {"detector": [TARGET]},
    ],
)
def test_malformed_settings_are_refused(said, weights, tmp_path):
    path = tmp_path / "odd.ckpt"
    torch.save({"state_dict": weights, "tff": said}, path)
    with pytest.raises(ValueError, match=r"odd\.ckpt"):
        load(path)


def test_weights_that_do_not_fit_are_refused(weights, tmp_path):
    path = tmp_path / "a.ckpt"
    weights["fc.weight"] = torch.zeros(2, 512)
    del weights["bn1.bias"]
    torch.save(weights | {"more": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="does not fit") as caught:
        load(path)
    for part in (
        "1 tensor missing (bn1.bias)",
        "1 tensor unknown (more)",
        "1 tensor of another shape (fc.weight)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("outputs", "what"), [(1000, "an ImageNet classifier"), (2, "a classifier")]
)
def test_classifiers_are_refused(outputs, what, weights, tmp_path):
    path = tmp_path / "resnet18.pth"
    weights |= {"fc.weight": torch.zeros(outputs, 512), "fc.bias": torch.zeros(outputs)}
    torch.save(weights, path)
    with pytest.raises(ValueError, match=rf"is {what} with {outputs:,} outputs, not a") as caught:
        load(path)
    assert str(caught.value).endswith(f"detector.pretrained={path}")


def test_batch_counters_may_be_missing(weights, detector, tmp_path):
    old = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    torch.save({"model": old}, tmp_path / "old.pth")
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "old.pth")(image), detector(image))


@pytest.mark.parametrize("name", ["squeezenet1_1", "mnasnet0_5", "googlenet"])
def test_other_architectures_are_loaded_by_their_settings(name, tmp_path):
    made = torchvision_model(name, False).eval()
    # As trained by others: with auxiliary classifiers where there are some.
    auxiliary = {"aux1.fc2.weight": torch.zeros(1, 1024)} if name == "googlenet" else {}
    torch.save({"model": made.network.state_dict() | auxiliary}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"unknown architecture.*load\(path, \{"):
        load(tmp_path / "other.pth")
    found = load(tmp_path / "other.pth", {"_target_": TARGET, "name": name})
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found(image), made(image))


def test_given_settings_override_those_in_the_file(weights, detector, tmp_path):
    path = tmp_path / "own.ckpt"
    torch.save(
        {"state_dict": weights, "tff": {"detector": SETTINGS | {"name": "mobilenet_v2"}}}, path
    )
    with pytest.raises(ValueError, match=r"does not fit .*'mobilenet_v2'"):
        load(path)
    timm_s = {"_target_": "tff.detectors.timm_models.timm_model", "name": "resnet18"}
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(load(path, timm_s)(image), detector(image))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"_target_": TARGET, "name": "resnet34"},
            r"does not fit .*'resnet34'.* missing \(layer1\.2",
        ),
        ({"_target_": TARGET, "name": "resnet19"}, r"cannot be built: detector\.name=resnet19: "),
        ({"_target_": TARGET}, "cannot be built: .*name"),
        ({"_target_": "os.system", "command": "true"}, "not a part of tff.detectors"),
        ({"name": "resnet18"}, "names None, not a part"),
        ({"_target_": "tff.detectors.safe_load.read"}, "cannot be built"),
    ],
)
def test_wrong_settings_are_refused(settings, message, weights, tmp_path):
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path / "a.pth", settings)
    assert str(caught.value).startswith(f"checkpoint {tmp_path / 'a.pth'}: ")
