"""EfficientNet-B0 as a universal detector (Chandrasegaran et al., ECCV 2022)."""

from __future__ import annotations

from tff.detectors.base import Detector
from tff.detectors.timm_model import network_of

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
    return Detector(network_of(_TWIN, pretrained), tff_fraction=27 / 21008)
