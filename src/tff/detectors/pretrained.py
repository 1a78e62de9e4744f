"""ImageNet weights to start from: downloaded, or from the user's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from tff.detectors.formats import state_dict_in
from tff.detectors.reading import read
from tff.detectors.weights import fill, fit, head_of


def start_from(
    network: nn.Module, pretrained: bool | str, download: Callable[[], Mapping[str, Any]]
) -> None:
    """Draw the head, and load weights into the rest of the network.

    The head keeps what was drawn where the weights have another number of classes, or no head; a
    detector's head is loaded too.

    Args:
        network: with one output; changed in place.
        pretrained: true: what `download` returns; false: nothing; a path: that file.
        download: fetches the ImageNet weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no network, or weights of another architecture; the message says what to do.
    """
    name, head = head_of(network)
    # As in Wang et al. (CVPR 2020).
    nn.init.normal_(head.weight, 0.0, 0.02)
    if pretrained is False:
        return
    content = _downloaded(download) if pretrained is True else read(pretrained)
    weights = state_dict_in(content, str(pretrained))
    drawn = {f"{name}.{tensor}": value for tensor, value in head.state_dict().items()}
    if not drawn.keys() & weights.keys():
        weights |= drawn
    found = fit(network, weights).but_head()
    if not found:
        raise ValueError(f"detector.pretrained={pretrained}: not weights of this network: {found}")
    fill(network, weights)


def _downloaded(download: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return dict(download())
    except Exception as error:  # whatever the download library raises without a network
        raise ValueError(
            "detector.pretrained=true: the ImageNet weights could not be downloaded "
            f"({type(error).__name__}: {str(error)[:200]}). Without a network, pass a file of "
            "weights with detector.pretrained=PATH, or start at random with "
            "detector.pretrained=false"
        ) from error
