"""Detectors from timm, and the paper's EfficientNet-B0."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import timm
from torch import nn

from tff.detectors.detector import Detector
from tff.detectors.weights import initialise
from tff.options import PATH, checked


@checked("detector")
def timm_model(name: str, pretrained: bool | Annotated[str, PATH] = True) -> Detector:
    """A timm network with one logit, on pixels normalised as its weights expect.

    Args:
        name: such as `resnet50d`, or with the tag of its weights: `resnet50.a1_in1k`.
        pretrained: true: ImageNet weights (downloaded); false: random; or a file of weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: timm has no such network, or the weights do not fit or cannot be downloaded.
    """
    network = build_network(name, pretrained)
    config: Any = network.pretrained_cfg
    return Detector(network, mean=tuple(config["mean"]), std=tuple(config["std"]))


def build_network(name: str, pretrained: bool | str) -> nn.Module:
    """The bare network, normalised images (B, 3, H, W) -> (B, 1); arguments of `timm_model`."""
    if not isinstance(name, str) or not timm.is_model(name):
        models = timm.list_models()
        close = difflib.get_close_matches(str(name).partition(".")[0], models)
        near = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"detector.name={name}: timm has no such network.{near} timm.list_models() lists all "
            f"{len(models):,}: resnet50, resnet50d, convnext_tiny, regnety_008, ..."
        )
    architecture, _, tag = name.partition(".")
    tags = [t.partition(".")[2] for t in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"detector.name={name}: timm has no such weights of {architecture}; available: "
            f"{', '.join(tags) or 'none'}"
        )
    network: nn.Module = timm.create_model(name, num_classes=1)
    # timm downloads the weights and converts them to its current names and shapes; we load them.
    initialise(network, pretrained, lambda: timm.create_model(name, pretrained=True).state_dict())
    return network


# The authors train efficientnet_pytorch's network, which equals timm's TensorFlow variant ("same"
# padding, BatchNorm eps 1e-3), not torchvision's.
_EFFICIENTNET_B0 = "tf_efficientnet_b0.in1k"


@checked("detector")
def efficientnet_b0(pretrained: bool | Annotated[str, PATH] = True) -> Detector:
    """EfficientNet-B0 with one logit.

    Args:
        pretrained: true: ImageNet weights (downloaded); false: random; or a file of weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the weights do not fit or cannot be downloaded.
    """
    # The paper's k: the top 27 of 21,008 channels (0.13 %).
    return Detector(build_network(_EFFICIENTNET_B0, pretrained), tff_fraction=27 / 21008)
