"""Detectors from torchvision."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

import torchvision
from torch import nn

from tff.detectors.detector import Detector
from tff.detectors.weights import initialise, replace_head
from tff.options import PATH, checked

_INCEPTIONS = ("googlenet", "inception_v3")


@checked("detector")
def torchvision_model(name: str, pretrained: bool | Annotated[str, PATH] = True) -> Detector:
    """A torchvision network with one logit.

    ResNet-50 is the detector of Wang et al. (CVPR 2020) and of Chandrasegaran et al. (ECCV 2022).

    Args:
        name: such as `resnet50`, `vgg16_bn`, `convnext_tiny`, `vit_b_16`.
        pretrained: true: ImageNet weights (downloaded); false: random; or a file of weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: torchvision has no such network, or the weights do not fit or cannot be
            downloaded.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(str(name), known)
        near = f" Did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"detector.name={name}: torchvision has no such network.{near} "
            f"Available: {', '.join(known)}"
        )
    options: dict[str, Any] = {}
    if name in _INCEPTIONS:
        # Auxiliary classifiers would return more than one logit in training; torchvision's
        # initialisation takes most of a minute.
        options = {"aux_logits": False, "init_weights": False}
    network = torchvision.models.get_model(name, weights=None, **options)
    replace_head(network)
    if isinstance(network, torchvision.models.SqueezeNet):
        # It ends in a ReLU: without a negative logit no image could be called real.
        network.classifier[2] = nn.Identity()
    initialise(network, pretrained, lambda: _imagenet(name))
    if name in _INCEPTIONS:
        # Their weights expect pixels in [-1, 1]. torchvision converts from ImageNet's statistics
        # inside the network (`transform_input`); this is equivalent.
        return Detector(network, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Detector(network)


def _imagenet(name: str) -> dict[str, Any]:
    # The first ImageNet weights, which the published detectors start from.
    versions = torchvision.models.get_model_weights(name).__members__
    weights = versions.get("IMAGENET1K_V1") or next(iter(versions.values()))
    return dict(weights.get_state_dict(check_hash=True, weights_only=True))
