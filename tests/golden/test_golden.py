"""The engine and the interventions against the authors' released code.

The files hold what that code gives for networks and images made by `formula.py`, in float64, with
BatchNorm fused exactly: `P` shares of positive relevance, `P_minus0` those of image 0 under the
other sign, `maxact0` spatial maxima of image 0, `logits_mask` logits with `mask_keys` dropped.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from tests.golden import formula
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from tff.detectors.base import Detector
from tff.detectors.interventions import dropped, recorded
from tff.relevance.lrp import LRP, Explanation

FOLDER = Path(__file__).parent
NETWORKS = ("bottleneck", "resnet18", "dead_layer", "efficientnet")


def build(arch: str) -> nn.Module:
    if arch == "resnet18":
        return torchvision.models.resnet18(num_classes=1)
    if arch == "efficientnet_b0":
        return timm.create_model("tf_efficientnet_b0", num_classes=1)
    return ResNet(Bottleneck, [int(digit) for digit in arch.removeprefix("bottleneck")], 1)


def kill_a_layer(network: nn.Module) -> None:
    weights = network.state_dict()
    for name in ("weight", "bias"):
        weights[f"layer1.1.bn3.{name}"].zero_()
    weights["layer2.0.bn2.weight"][:8] = 0
    weights["layer2.0.bn2.bias"][:8] = 0.5


@dataclass
class Case:
    name: str
    file: Any
    meta: dict[str, Any]
    network: nn.Module
    images: Tensor

    def explain(self, dtype: torch.dtype) -> Explanation:
        """All images for the logit, then image 0 once more against it."""
        engine = LRP(self.network.to(dtype), box=self.name != "efficientnet")
        assert [self.canonical(layer) for layer in engine.channels.layers] == [*self.file["layers"]]
        assert [*engine.channels.widths.values()] == [*self.file["channels"]]
        images = torch.cat([self.images, self.images[:1]]).to(dtype)
        sign = torch.ones(len(images))
        sign[-1] = -1
        return engine.explain(images, sign, pixels=True)

    @cached_property
    def double(self) -> Explanation:
        return self.explain(torch.float64)

    def canonical(self, layer: str) -> str:
        family = formula.family(self.network.state_dict())
        return formula.canonical_name(f"{layer}.weight", family).removesuffix(".weight")

    def golden(self, key: str) -> Any:
        """A dead layer is NaN in the released code and 0 here."""
        return np.nan_to_num(self.file[key])

    @cached_property
    def detector(self) -> Detector:
        """In float64, on images that are normalised already."""

        detector = Detector(self.network.double()).double().eval()
        detector.mean.zero_()
        detector.std.fill_(1)
        return detector

    @cached_property
    def masked(self) -> Tensor:
        layers = {self.canonical(layer): layer for layer in self.detector.channels.layers}
        keys = [re.fullmatch(r"(.*)\.#(\d+)\(T=\d+\)", str(k)) for k in self.file["mask_keys"]]
        flat = [self.detector.channels.flat(layers[k[1]], int(k[2])) for k in keys if k]
        assert len(flat) == 20
        return torch.tensor(flat)


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    file = dict(np.load(FOLDER / f"{request.param}.npz"))
    meta = json.loads(str(file["meta"]))
    network = formula.fill(build(meta["arch"]), meta["seed"]).eval()
    if request.param == "dead_layer":
        kill_a_layer(network)
    images, _ = formula.images(meta["seed"], meta["n"], meta["size"])
    return Case(request.param, file, meta, network, images)


def difference(found: Any, golden: Any) -> float:
    return float(np.abs(np.asarray(found, np.float64) - golden).max())


def distance(found: Any, golden: Any, axis: int | None = None) -> Any:
    """Relative L2 error."""
    error = np.asarray(found, np.float64) - golden
    golden = np.sqrt((golden**2).sum(axis))
    return np.sqrt((error**2).sum(axis)) / np.where(golden > 0, golden, 1)


def test_network_is_the_one_of_the_file(case):
    assert formula.checksum(case.network) == case.meta["weights_crc32"]


def test_double_precision(case):
    found, n = case.double, case.meta["n"]
    assert difference(found.logit[:n], case.file["logits"][:, 0]) <= 1e-11
    assert difference(found.shares[:n], case.golden("P")) <= 1e-10
    assert difference(found.shares[:n].mean(0), case.golden("P").mean(0)) <= 1e-10
    if "pixel0" in case.file:
        assert distance(found.pixels[0], case.file["pixel0"]) <= 1e-10


def test_other_sign(case):
    assert difference(case.double.shares[-1], case.golden("P_minus0")) <= 1e-10
    assert difference(case.double.shares[-1], case.double.shares[0].numpy()) > 1e-3
    torch.testing.assert_close(case.double.pixels[-1], -case.double.pixels[0])


def test_dead_layer_has_no_relevance(case):
    dead = np.isnan(case.file["P"])
    assert dead.any() == (case.name == "dead_layer")
    assert (case.double.shares[: case.meta["n"]].numpy()[dead] == 0).all()


def test_dropped_channels(case):
    detector, images = case.detector, case.images.double()
    with torch.no_grad(), dropped(detector, case.masked):
        logits = detector(images)
    assert difference(logits, case.file["logits_mask"][:, 0]) <= 1e-11
    with torch.no_grad():
        assert difference(detector(images), case.file["logits"][:, 0]) <= 1e-11


def test_recorded_maxima(case):
    detector, image = case.detector, case.images[:1].double()
    channels = torch.randperm(len(detector.channels), generator=torch.manual_seed(0))
    with torch.no_grad(), recorded(detector, channels) as responses:
        beside = responses.beside(detector(image))[0]
    assert difference(beside[0], case.file["logits"][0, 0]) <= 1e-11
    assert difference(beside[1:], case.file["maxact0"][channels]) <= 1e-11


def test_single_precision(case):
    found, n, golden = case.explain(torch.float32), case.meta["n"], case.golden("P")
    shares, omega = found.shares[:n].numpy(), golden.mean(0)
    mean = shares.astype(np.float64).mean(0)
    assert difference(found.logit[:n], case.file["logits"][:, 0]) <= 1e-4
    assert difference(shares, golden) <= 1e-3
    assert difference(mean, omega) <= 5e-5
    assert distance(mean, omega) <= 2e-4
    top = omega.argsort()[::-1][:114]
    assert (np.abs(mean - omega)[top] / omega[top]).max() <= 2e-4
    ends = np.cumsum(case.file["channels"])[:-1]
    layers = zip(np.split(shares, ends, axis=1), np.split(golden, ends, axis=1), strict=True)
    errors = np.concatenate([distance(a, b, axis=1) for a, b in layers])
    assert np.median(errors) <= 1e-5
    assert np.quantile(errors, 0.99) <= 1e-3
    if "pixel0" in case.file:
        assert distance(found.pixels[0], case.file["pixel0"]) <= 1e-3
