"""Record or drop channels of a detector while it runs; nothing is left behind afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from tff.detectors.base import Detector


@contextmanager
def dropped(detector: Detector, channels: Tensor) -> Iterator[None]:
    """Feature-map dropout: the raw convolution output of these channels is 0.

    As in the released code this happens before BatchNorm, so that behind it the channel is a
    constant (its fused bias), not 0.

    Args:
        detector: in eval mode; unchanged after the block.
        channels: (k,) flat indices in `detector.channels`.
    """
    with ExitStack() as stack:
        for layer, mask in detector.channels.masks(channels).items():
            convolution = detector.network.get_submodule(layer)
            weight = next(convolution.parameters())
            keep = (~mask).to(weight).view(-1, 1, 1)
            handle = convolution.register_forward_hook(lambda _m, _i, out, keep=keep: out * keep)
            stack.callback(handle.remove)
        yield


class Responses:
    """Spatial maxima of chosen channels of the batch that went through last.

    For a channel whose BatchNorm has a negative scale this is the least active place behind it, as
    in the released code.
    """

    def __init__(self, detector: Detector, channels: Tensor) -> None:
        self._of_layer: dict[str, Tensor] = {}
        self._channels, self._numbering = channels, detector.channels
        self._masks = detector.channels.masks(channels)

    def hook(self, layer: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        """Record this layer from now on, until the handle is removed."""

        def record(_module: nn.Module, _inputs: object, out: Tensor) -> None:
            self._of_layer[layer] = out.amax((2, 3))

        return module.register_forward_hook(record)

    def beside(self, logits: Tensor) -> Tensor:
        """(B,) logits -> (B, 1 + k): beside them the spatial maxima in the order asked for."""
        full = logits.new_zeros(len(logits), len(self._numbering))
        for layer, values in self._of_layer.items():
            start = self._numbering.starts[layer]
            full[:, start : start + values.shape[1]] = values
        return torch.cat([logits[:, None], full[:, self._channels.to(full.device)]], dim=1)


@contextmanager
def recorded(detector: Detector, channels: Tensor) -> Iterator[Responses]:
    """Record the spatial maximum of each channel (k,) of every batch that runs in the block."""
    responses = Responses(detector, channels)
    with ExitStack() as stack:
        for layer in detector.channels.masks(channels):
            handle = responses.hook(layer, detector.network.get_submodule(layer))
            stack.callback(handle.remove)
        yield responses
