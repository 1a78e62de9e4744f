"""The networks of the golden files, and how far numbers are from them.

The files hold what the authors' released code gives for networks and images of golden_formula.py,
in float64, with BatchNorm fused exactly: `P` shares of positive relevance, `P_minus0` those of
image 0 under the other sign, `maxact0` spatial maxima of image 0, `logits_mask` logits with
`mask_keys` dropped, `lrpmax_*` LRP-max of `lrpmax_keys` on image 0 (value, place, relevance summed
over colors, box of the patch).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from tests.helpers import golden_formula as formula
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from tff.detectors.detector import Detector
from tff.relevance.lrp import LRP, Explanation

FOLDER = Path(__file__).parents[1] / "golden"
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

    def channel(self, key: str) -> tuple[str, int]:
        """`LAYER.#CHANNEL(T=CHANNELS)`, as the released code names channels."""
        (found,) = re.findall(r"^(.*)\.#(\d+)\(T=\d+\)$", key)
        layers = {self.canonical(layer): layer for layer in self.detector.channels.layers}
        return layers[found[0]], int(found[1])

    @cached_property
    def masked(self) -> Tensor:
        keys = [str(key) for key in self.file["mask_keys"]]
        assert len(keys) == 20
        return torch.tensor([self.detector.channels.flat_index(*self.channel(key)) for key in keys])


def load(name: str) -> Case:
    file = dict(np.load(FOLDER / f"{name}.npz"))
    meta = json.loads(str(file["meta"]))
    network = formula.fill(build(meta["arch"]), meta["seed"]).eval()
    if name == "dead_layer":
        kill_a_layer(network)
    images, _ = formula.images(meta["seed"], meta["n"], meta["size"])
    return Case(name, file, meta, network, images)


def difference(found: Any, golden: Any) -> float:
    return float(np.abs(np.asarray(found, np.float64) - golden).max())


def distance(found: Any, golden: Any, axis: int | None = None) -> Any:
    """Relative L2 error."""
    error = np.asarray(found, np.float64) - golden
    golden = np.sqrt((golden**2).sum(axis))
    return np.sqrt((error**2).sum(axis)) / np.where(golden > 0, golden, 1)
