from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tff.detectors.base import Detector
from tff.detectors.checkpoint import load, origin, read
from tff.detectors.resnet import resnet

SETTINGS = {"_target_": "tff.detectors.resnet.resnet", "name": "resnet18", "pretrained": True}


@pytest.fixture(scope="module")
def detector() -> Detector:
    detector = resnet("resnet18", False)
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
def test_formats(wrap, weights, detector, tmp_path):
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


def test_safetensors(weights, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(weights, path)
    state = load(str(path)).network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        load(path)


def test_origin(tmp_path):
    said = {"detector": SETTINGS, "data": {"root": "x"}, "seed": 3}
    torch.save({"state_dict": {}, "tff": said}, tmp_path / "own.ckpt")
    torch.save({"model": {}}, tmp_path / "other.ckpt")
    assert origin(tmp_path / "own.ckpt") == said
    assert origin(tmp_path / "other.ckpt") == {}


@pytest.mark.parametrize("kept", [0, 1, 100, 40_000, -1])
def test_cut_short(kept, tmp_path):
    path = tmp_path / "short.ckpt"
    torch.save({"a": torch.zeros(20_000)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"short\.ckpt"):
        read(path)


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt: no such file"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(FileNotFoundError):
        load(tmp_path)


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(1), "text"])
def test_no_dictionary(content, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="expected a dictionary"):
        load(tmp_path / "a.ckpt")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {"note": "empty"}}])
def test_no_tensors(content, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="holds no tensors"):
        load(tmp_path / "a.ckpt")


class Payload:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.witness}'",)


def write_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("writer", [torch.save, write_pickle])
def test_code_does_not_run(writer, tmp_path):
    path, witness = tmp_path / "evil.ckpt", tmp_path / "ran"
    content = {"model": {"conv1.weight": torch.zeros(1)}, "extra": Payload(witness)}
    writer(content, path)
    with pytest.raises(ValueError, match=r"evil\.ckpt"):
        load(path)
    with pytest.raises(ValueError, match=r"evil\.ckpt"):
        resnet("resnet18", str(path))
    assert not witness.exists()
    pickle.loads(pickle.dumps(content))  # the payload itself works
    assert witness.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "os.system", "command": "touch {}"},
        {"_target_": "pathlib.Path.touch", "_args_": ["{}"]},
        SETTINGS | {"name": {"_target_": "os.system", "command": "touch {}"}},
        SETTINGS | {"name": [{"_target_": "os.system", "command": "touch {}"}]},
        # Of other packages, though reached through a module of ours.
        {"_target_": "tff.detectors.base.torch.save", "obj": 1, "f": "{}"},
        SETTINGS | {"name": {"_target_": "tff.detectors.base.torch.save", "obj": 1, "f": "{}"}},
    ],
)
def test_foreign_parts_are_refused(settings, tmp_path):
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
    "said", [3, {"detector": SETTINGS | {"bogus": 1}}, {"detector": {"name": "resnet18"}}]
)
def test_malformed_settings(said, weights, tmp_path):
    path = tmp_path / "odd.ckpt"
    torch.save({"state_dict": weights, "tff": said}, path)
    with pytest.raises(ValueError, match=r"odd\.ckpt"):
        load(path)


def test_weights_that_do_not_fit(weights, tmp_path):
    path = tmp_path / "a.ckpt"
    weights["fc.weight"] = torch.zeros(2, 512)
    del weights["bn1.bias"]
    torch.save(weights | {"more": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not fit") as caught:
        load(path)
    for part in (
        "1 tensors missing (bn1.bias)",
        "1 unknown (more)",
        "of another shape (fc.weight)",
    ):
        assert part in str(caught.value)


def test_unknown_architecture(tmp_path):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=r"unknown architecture.*features\.0\.weight"):
        load(tmp_path / "vgg.pth")
