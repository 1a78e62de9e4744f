"""Is a detector of an architecture for which numbers were published, and what are its layers?"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import pandas as pd
import torch
from torch import nn

from tff.detectors.detector import Detector
from tff.detectors.weights import state_dict_in
from tff.published.tables import FOLDER


class _Known(NamedTuple):
    """What tells networks apart whose feature maps bear the same names."""

    name: str
    title: str
    parameters: int  # with one logit; squeeze-excite in a ResNet would add some
    eps: float  # of BatchNorm: timm's other EfficientNet-B0 has 1e-5, and other padding


_ARCHITECTURES = (
    _Known("resnet50", "ResNet-50", 23_510_081, 1e-5),
    _Known("efficientnet_b0", "EfficientNet-B0", 4_008_829, 1e-3),
)
#: Name -> as it is written.
TITLES = {known.name: known.title for known in _ARCHITECTURES}


def architecture(detector: Detector) -> str | None:
    """`resnet50` or `efficientnet_b0` (as the authors trained it), None for any other network.

    Told by names and widths of the feature maps, the number of parameters, and BatchNorm's eps.
    """
    parameters = sum(parameter.numel() for parameter in detector.network.parameters())
    eps = {m.eps for m in detector.network.modules() if isinstance(m, nn.BatchNorm2d)}
    for known in _ARCHITECTURES:
        if parameters == known.parameters and eps == {known.eps}:
            return known.name if dict(detector.channels.widths) == _widths(known.name) else None
    return None


@cache
def ranking(name: str) -> pd.DataFrame:
    """The authors' ranking of generated images: `layer`, `channel`, `omega` (float64).

    One row a channel in the order of their file, best first; layers by their names here.
    """
    table = pd.read_parquet(FOLDER / f"omega_{name}.parquet")
    layers = table["layer"].astype(str)
    if name == "efficientnet_b0":
        layers = translated(layers, layers.map(layers.value_counts()))
    return table.assign(layer=layers)


def translated(layers: pd.Series[str], widths: pd.Series[int]) -> pd.Series[str]:
    """Names of efficientnet_pytorch's convolutions -> timm's.

    timm numbers blocks within stages, and a stage is a run of blocks of equal width: convolutions
    of all blocks have to be there.

    Args:
        layers: one a row, in any order.
        widths: number of channels of the layer in that row.
    """
    # The same translation as that of a checkpoint.
    weights = {
        f"{layer}.weight": torch.zeros(int(width))
        for layer, width in dict(zip(layers, widths, strict=True)).items()
    }
    ours = [name.removesuffix(".weight") for name in state_dict_in(weights, "ranking")]
    theirs = [name.removesuffix(".weight") for name in weights]
    return layers.map(dict(zip(theirs, ours, strict=True)))


def _widths(name: str) -> dict[str, int]:
    layers: Iterable[tuple[object, int]] = ranking(name)["layer"].value_counts().items()
    return {str(layer): int(width) for layer, width in layers}
