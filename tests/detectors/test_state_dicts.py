"""Weights are found in files of other trainers, whatever they are wrapped in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torchvision.models import resnet18, resnet34

from tff.detectors.checkpoint import load
from tff.detectors.state_dicts import find_state_dicts, select_state_dict
from tff.detectors.torchvision_models import torchvision_model

State = dict[str, Tensor]
SETTINGS = {"_target_": "tff.detectors.torchvision_models.torchvision_model", "name": "resnet18"}


@pytest.fixture(scope="module")
def plain() -> State:
    torch.manual_seed(0)
    return dict(resnet18(num_classes=1).state_dict())


def named(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def without_head(state: State, **head: str) -> State:
    """Under other names of the last layer."""
    return {head.get(name.replace(".", "_"), name): value for name, value in state.items()}


def other(state: State) -> State:
    return {name: value + 1 for name, value in state.items()}


def in_parts(state: State, part: str) -> State:
    return {name.replace("layer1", f"layer1.{part}"): value for name, value in state.items()}


HEAD = {"fc_weight": "head.weight", "fc_bias": "head.bias"}
FORMS: dict[str, Callable[[State], Any]] = {
    "compiled in Lightning": lambda s: {"state_dict": named(s, "model._orig_mod.")},
    "data parallel in Lightning": lambda s: {"state_dict": named(s, "model.module.")},
    "distributed and compiled": lambda s: named(s, "_orig_mod.module."),
    "weight of the loss": lambda s: {
        "state_dict": named(s, "model.") | {"criterion.pos_weight": torch.ones(1)}
    },
    "weights of classes": lambda s: {
        "state_dict": named(s, "model.") | {"criterion.weight": torch.ones(2)}
    },
    "metrics": lambda s: {
        "state_dict": named(s, "model.") | {"val_auroc.total": torch.zeros(1)}
    },
    "average": lambda s: {"n_averaged": torch.tensor(7), **named(s, "module.")},
    "net": lambda s: {"net": s, "acc": 91.0, "epoch": 3},
    "net in Lightning": lambda s: {"state_dict": named(s, "net.")},
    "tutorial": lambda s: {"epoch": 3, "model_state_dict": s, "loss": 0.1},
    "averages alone": lambda s: {"state_dict_ema": s},
    "counted by thop": lambda s: s | {
        "total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)
    },
    "any name": lambda s: {"wonderful": {"things": named(s, "a.b.c.d.")}},
    "deep": lambda s: {"a": {"b": {"c": {"d": [{"e": s}]}}}},
    "list": lambda s: {"models": [s]},
    "averages beside": lambda s: {"state_dict": s, "state_dict_ema": other(s)},
    "student and its equal": lambda s: {"student": s, "teacher": dict(s)},
    "backbone": lambda s: {
        "state_dict": without_head(named(s, "backbone."), **{
            "backbone_fc_weight": "head.weight", "backbone_fc_bias": "head.bias"
        })
    },
    "another last layer": lambda s: without_head(s, **HEAD),
    "a layer in the last one": lambda s: without_head(
        s, fc_weight="fc.1.weight", fc_bias="fc.1.bias"
    ),
    "compiled in parts": lambda s: in_parts(s, "_orig_mod"),
    "sharded": lambda s: named(in_parts(s, "_checkpoint_wrapped_module"), "_fsdp_wrapped_module."),
    "half precision": lambda s: {n: v.half() if v.is_floating_point() else v for n, v in s.items()},
    "no counters": lambda s: {n: v for n, v in s.items() if "num_batches" not in n},
    "generator beside": lambda s: {
        "discriminator": named(s, "d."), "generator": {"up.weight": torch.zeros(9, 9)}
    },
    "with its optimizer": lambda s: {
        "params": s,
        "opt": {"state": {n: {"exp_avg": v} for n, v in enumerate(s.values())}, "param_groups": []},
    },
    "weight normalisation": lambda s: {
        n: v for n, v in s.items() if n != "conv1.weight"
    } | {
        "conv1.weight_g": s["conv1.weight"].flatten(1).norm(dim=1).view(-1, 1, 1, 1),
        "conv1.weight_v": s["conv1.weight"] * 3,
    },
    "counts of a metric": lambda s: s | {"confusion.matrix": torch.zeros(2, 2, dtype=torch.long)},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_in_every_wrapper(form, plain, tmp_path, caplog):
    path = tmp_path / "a.pth"
    torch.save(FORMS[form](plain), path)
    loaded = [load(path), torchvision_model("resnet18", str(path))]
    atol = 1e-3 if form in ("half precision", "weight normalisation") else 0
    for found in loaded:
        for name, value in found.network.state_dict().items():
            if "num_batches" not in name:
                torch.testing.assert_close(value, plain[name], rtol=0, atol=atol, msg=name)
    told = [r.getMessage() for r in caplog.records if "not used: " in r.getMessage()]
    beside = ("weight of the loss", "metrics", "average", "averages beside", "counted by thop")
    assert len(told) == 2 * (
        form in (*beside, "weights of classes", "student and its equal", "generator beside",
                 "counts of a metric")
    )  # fmt: skip


def test_weights_in_safetensors_lose_their_prefix(plain, tmp_path):
    save_file(named(plain, "model.encoder."), tmp_path / "a.safetensors")
    assert torch.equal(load(tmp_path / "a.safetensors").network.fc.weight, plain["fc.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda s: {"student": s, "teacher": other(s)}, r"networks: student, teacher; save"),
        (
            lambda s: {"x": named(s, "one.") | named(other(s), "two.")},
            r"several networks: x one, x two; save",
        ),
        (lambda s: s | {"layer5.0.weight": torch.zeros(3, 3)}, r"1 tensor unknown \(layer5"),
        (lambda s: s | {"attention.weight": torch.zeros(64, 64)}, r"1 tensor unknown \(attention"),
        (lambda s: without_head(s, **HEAD) | {"other.weight": s["fc.weight"]}, "2 tensors missing"),
        (
            lambda s: {n: v.to(torch.int8) if n == "conv1.weight" else v for n, v in s.items()},
            r"its tensor 'conv1\.weight' is of whole numbers, perhaps quantised",
        ),
        (
            lambda s: s | {"fc.weight": torch.zeros(2, 512), "fc.bias": torch.zeros(2)},
            r"2 outputs, .* fc\.weight as weight\[1:\] - weight\[:1\]",
        ),
        (lambda s: {"epoch": 3, "args": {"lr": 1}}, r"holds no tensors, only: epoch, args"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused(content, message, plain, tmp_path):
    torch.save(content(plain), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=rf"a\.pth: .*{message}"):
        load(tmp_path / "a.pth", SETTINGS)


def test_a_deeper_network_is_not_cut_short(tmp_path):
    """All tensors of a ResNet-18 are in a ResNet-34, with the same names and shapes."""
    torch.save(resnet34(num_classes=1).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"does not fit .* tensors unknown"):
        load(tmp_path / "a.pth", SETTINGS)


@pytest.mark.filterwarnings("ignore")  # torch deprecates the older ones
@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        lambda layer: parametrizations.weight_norm(layer, dim=1),
        parametrizations.spectral_norm, weight_norm, spectral_norm,
        lambda layer: spectral_norm(layer, dim=1),
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    ],
)  # fmt: skip
def test_weights_stored_in_parts_are_computed(wrap):
    torch.manual_seed(0)
    network = nn.Sequential(wrap(nn.Conv2d(3, 8, 3)), nn.Linear(8, 1)).double()
    for _ in range(3):
        network[0](torch.rand(1, 3, 5, 5, dtype=torch.float64))
    network.eval()(torch.rand(1, 3, 8, 10, dtype=torch.float64))
    expected = network[0].weight.detach()
    target = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 1)).double()
    found = select_state_dict(find_state_dicts(network.state_dict(), "a"), target, "a")
    target.load_state_dict(found)
    torch.testing.assert_close(target[0].weight, expected, rtol=1e-12, atol=1e-12)
