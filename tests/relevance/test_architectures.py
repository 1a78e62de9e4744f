"""Relevance through every family of convolutional networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tff.detectors.detector import Detector
from tff.detectors.timm_models import timm_model
from tff.detectors.torchvision_models import torchvision_model
from tff.relevance.lrp import LRP

# Small networks, between them with every kind of operation.
SMALL = [
    (torchvision_model, "efficientnet_b0"), (torchvision_model, "mnasnet0_5"),
    (torchvision_model, "mobilenet_v3_small"), (torchvision_model, "regnet_y_400mf"),
    (torchvision_model, "resnet18"), (torchvision_model, "shufflenet_v2_x0_5"),
    (torchvision_model, "squeezenet1_1"), (timm_model, "poolformer_s12"),
    (timm_model, "repvgg_a0"), (timm_model, "skresnet18"),
]  # fmt: skip
LARGE = [
    *((torchvision_model, name) for name in (
        "alexnet", "convnext_tiny", "densenet121", "efficientnet_v2_s", "googlenet", "inception_v3",
        "mobilenet_v2", "regnet_x_400mf", "resnext50_32x4d", "vgg11", "vgg11_bn", "wide_resnet50_2",
    )),
    # With weight standardisation, blur pooling or Conv1d in a gate: nfnet_f0, tresnet_m,
    # ecaresnet50t.
    *((timm_model, name) for name in (
        "convnext_tiny", "ecaresnet50t", "mobilenetv3_large_100", "nfnet_f0", "regnety_008",
        "resnet50", "resnet50d", "seresnet50", "tf_efficientnet_b0", "tresnet_m",
    )),
]  # fmt: skip


def alive(detector: Detector) -> Detector:
    """BatchNorms that differ, so that values neither die out nor explode on their way."""
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = None
    with torch.no_grad():
        detector.train()(torch.rand(3, 3, 96, 96))
    return detector.double().eval()


@pytest.fixture(autouse=True)
def _quick_start(monkeypatch):
    """Weights of large layers are not drawn by the slow recipes of the libraries."""
    torch.manual_seed(0)
    for recipe in ("kaiming_uniform_", "kaiming_normal_", "trunc_normal_", "xavier_uniform_"):

        def draw(tensor, *_args, **_kwargs):
            spread = (2 / tensor[0].numel()) ** 0.5
            return nn.init.uniform_(tensor, -(3**0.5) * spread, 3**0.5 * spread)

        monkeypatch.setattr(nn.init, recipe, draw)


@pytest.mark.parametrize(
    ("make", "name"), [*SMALL, *(pytest.param(*case, marks=pytest.mark.slow) for case in LARGE)]
)
def test_relevance_is_conserved_or_recorded_as_lost(make, name):
    detector = alive(make(name, pretrained=False))
    images = torch.rand(2, 3, 96, 96, dtype=torch.float64)
    lrp = LRP(detector)
    found = lrp.explain(images, pixels=True)
    with torch.no_grad():
        torch.testing.assert_close(found.logit, detector(images), rtol=1e-9, atol=1e-12)
    lost = found.conservation[:, :, 2] + found.conservation[:, :, 3]
    size = found.conservation[:, :, 0].abs().amax(1).clamp(min=1)
    assert ((1 - lost.sum(1) - found.pixels.sum((1, 2, 3))).abs() <= 1e-9 * size).all()
    assert found.shares.isfinite().all()
    assert (found.shares >= 0).all()
    assert found.shares.sum() > 1
    assert lrp.channels == detector.channels
    assert set(lrp.channels.layers) <= dict(detector.network.named_modules()).keys()


@pytest.mark.parametrize(
    ("make", "name", "layers", "channels"),
    [
        (torchvision_model, "resnet50", 53, 26560),
        (torchvision_model, "efficientnet_b0", 49, 21008),
        (torchvision_model, "squeezenet1_1", 25, 2944),  # the last one gives the logit
        (timm_model, "tf_efficientnet_b0", 49, 21008),
        (timm_model, "seresnet50", 53, 26560),
    ],
)
def test_convolutions_in_gates_and_of_the_logit_are_not_feature_maps(make, name, layers, channels):
    numbering = make(name, pretrained=False).channels
    assert (len(numbering.layers), len(numbering)) == (layers, channels)
