"""ResNets as universal detectors (Wang et al., CVPR 2020; Chandrasegaran et al., ECCV 2022)."""

from __future__ import annotations

import torchvision
from torch import nn

from tff.detectors.base import Detector
from tff.detectors.pretrained import start_from


def resnet(name: str, pretrained: bool | str = True) -> Detector:
    """A torchvision ResNet with one logit.

    Args:
        name: `resnet18`, `resnet50`, or any other ResNet of torchvision.
        pretrained: true: ImageNet weights (downloaded), false: random ones, or a file of weights.

    Raises:
        ValueError: torchvision has no such ResNet, or the weights do not fit or cannot be had.
    """
    known = [n for n in torchvision.models.list_models() if n.startswith(("resnet", "wide_resnet"))]
    if name not in known:
        raise ValueError(f"detector.name={name}: no such ResNet; there are {', '.join(known)}")
    network = torchvision.models.get_model(name, weights=None)
    start_from(network, pretrained, lambda: _imagenet(name))
    network.fc = nn.Linear(network.fc.in_features, 1)
    # The head starts as in Wang et al.: N(0, 0.02).
    nn.init.normal_(network.fc.weight, 0.0, 0.02)
    return Detector(network)


def _imagenet(name: str) -> dict[str, object]:
    # The first ImageNet weights, which the published detectors start from.
    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    return dict(weights.get_state_dict(check_hash=True))
