"""Detectors from timm, and the paper's EfficientNet-B0."""

from __future__ import annotations

import difflib
from typing import Any

import timm
from torch import nn

from tff.detectors.detector import Detector
from tff.detectors.weights import initialise


def timm_model(name: str, pretrained: bool | str = True) -> Detector:
    """A network of timm with one logit, on pixels normalised as its weights expect them.

    Args:
        name: such as `resnet50d`, or with the tag of its weights: `resnet50.a1_in1k`.
        pretrained: true: ImageNet weights (downloaded), false: random ones, or a file of weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: timm has no such network, or the weights do not fit or cannot be had.
    """
    network = build_network(name, pretrained)
    told: Any = network.pretrained_cfg
    return Detector(network, mean=tuple(told["mean"]), std=tuple(told["std"]))


def build_network(name: str, pretrained: bool | str) -> nn.Module:
    """The bare network: normalised images (B, 3, H, W) -> (B, 1). Arguments as above."""
    if not isinstance(name, str) or not timm.is_model(name):
        models = timm.list_models()
        close = difflib.get_close_matches(str(name).partition(".")[0], models)
        near = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"detector.name={name}: timm has no such network.{near} There are {len(models):,}, "
            "which timm.list_models() lists: resnet50, resnet50d, convnext_tiny, regnety_008, ..."
        )
    architecture, _, tag = name.partition(".")
    tags = [t.partition(".")[2] for t in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"detector.name={name}: timm has no such weights of {architecture}; "
            f"there are {', '.join(tags) or 'none'}"
        )
    network: nn.Module = timm.create_model(name, num_classes=1)
    # Of timm's own loading only what it makes of a file is used: names and shapes as they are now.
    initialise(network, pretrained, lambda: timm.create_model(name, pretrained=True).state_dict())
    return network


# The authors train efficientnet_pytorch's network, whose twin in timm is the TensorFlow one
# ("same" padding, BatchNorm eps 1e-3); torchvision's is another network.
_TWIN = "tf_efficientnet_b0.in1k"


def efficientnet_b0(pretrained: bool | str = True) -> Detector:
    """EfficientNet-B0 with one logit.

    Args:
        pretrained: true: ImageNet weights (downloaded), false: random ones, or a file of weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the weights do not fit or cannot be had.
    """
    # The paper's k: the top 27 of 21,008 channels (0.13 %).
    return Detector(build_network(_TWIN, pretrained), tff_fraction=27 / 21008)
