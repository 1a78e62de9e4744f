"""EfficientNet-B0 as a universal detector (Chandrasegaran et al., ECCV 2022)."""

from __future__ import annotations

from typing import cast

import timm
from timm.models import load_state_dict_from_hf
from torch import nn

from tff.detectors.base import Detector
from tff.detectors.pretrained import start_from

# The authors train efficientnet_pytorch's network, whose twin in timm is the TensorFlow one
# ("same" padding, BatchNorm eps 1e-3); torchvision's is another network.
_TWIN = "tf_efficientnet_b0"


def efficientnet_b0(pretrained: bool | str = True) -> Detector:
    """EfficientNet-B0 with one logit.

    Args:
        pretrained: true: ImageNet weights (downloaded), false: random ones, or a file of weights.

    Raises:
        ValueError: the weights do not fit or cannot be had.
    """
    network = timm.create_model(_TWIN, pretrained=False)
    start_from(network, pretrained, _imagenet)
    network.classifier = nn.Linear(cast(int, network.num_features), 1)
    nn.init.normal_(network.classifier.weight, 0.0, 0.02)
    # The paper's k: the top 27 of 21,008 channels (0.13 %).
    return Detector(network, gates=("se",), tff_fraction=27 / 21008)


def _imagenet() -> dict[str, object]:
    return dict(load_state_dict_from_hf(f"timm/{_TWIN}.in1k", weights_only=True))
