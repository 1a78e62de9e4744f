"""Context managers that record or drop channels by hooks, and remove them on exit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from tff.detectors.detector import Detector

#: Replaces dropped channels: None for 0, one value per channel, or maps (B, C, H, W) per layer.
Replacement = Tensor | Mapping[str, Tensor] | None
Hook = Callable[[nn.Module, object, Tensor], Tensor | None]


@contextmanager
def drop_channels(
    detector: Detector, channels: Tensor, replacement: Replacement = None
) -> Iterator[None]:
    """Channel dropout: the raw convolution output of these channels is set to 0, or replaced.

    As in the released code this happens before BatchNorm, after which the channel is a constant
    (its fused bias), not 0.

    Args:
        detector: in eval mode; unchanged after the block.
        channels: (k,) flat indices in `detector.channels`.
        replacement: None for 0, one value per channel of the detector (n_channels,), or the raw
            outputs (B, C, H, W) of other images for each layer with a dropped channel.
    """

    def replace(layer: str, rows: Tensor) -> Hook:
        def hook(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
            index = rows.to(out.device)
            if replacement is None:
                return out.index_fill_(1, index, 0)
            if isinstance(replacement, Tensor):
                values = detector.channels.split(replacement.to(out))[layer][index]
                source = values.view(1, -1, 1, 1).expand(len(out), -1, *out.shape[2:])
            else:
                source = replacement[layer][:, index]
            return out.index_copy_(1, index, source)

        return hook

    masks = detector.channels.masks(channels)
    with _hooked(detector, {name: replace(name, m.nonzero()[:, 0]) for name, m in masks.items()}):
        yield


@contextmanager
def record_outputs(detector: Detector, layers: list[str]) -> Iterator[dict[str, Tensor]]:
    """Record the raw outputs (B, C, H, W) of these layers for the latest batch.

    In-place operations after a layer do not overwrite them. With gradients enabled, they are part
    of the graph.
    """
    found: dict[str, Tensor] = {}

    def keep(layer: str) -> Hook:
        def hook(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
            found[layer] = out
            return out.clone()

        return hook

    with _hooked(detector, {layer: keep(layer) for layer in layers}):
        yield found


class Responses:
    """Responses of channels, their spatial maxima, for the latest batch.

    For a channel whose BatchNorm has a negative scale this is the least active position after it,
    as in the released code.
    """

    def __init__(self, detector: Detector) -> None:
        self._channels = detector.channels
        self._of_layer: dict[str, Tensor] = {}

    def hook(self, layer: str) -> Hook:
        """Hook that records this layer."""

        def record(_module: nn.Module, _inputs: object, out: Tensor) -> None:
            self._of_layer[layer] = out.amax((2, 3))

        return record

    def select(self, channels: Tensor) -> Tensor:
        """Responses (B, k) of channels in the given order; their layers must be recorded."""
        some = next(iter(self._of_layer.values()))
        full = some.new_zeros(len(some), len(self._channels))
        for layer, values in self._of_layer.items():
            self._channels.split(full)[layer].copy_(values)
        return full[:, channels.to(full.device)]


@contextmanager
def record_responses(detector: Detector, channels: Tensor) -> Iterator[Responses]:
    """Record the responses of these channels for every batch in the block.

    Args:
        detector: in eval mode; unchanged after the block.
        channels: (k,) flat indices.
    """
    responses = Responses(detector)
    layers = detector.channels.masks(channels)
    with _hooked(detector, {layer: responses.hook(layer) for layer in layers}):
        yield responses


@contextmanager
def _hooked(detector: Detector, hooks: Mapping[str, Hook]) -> Iterator[None]:
    with ExitStack() as stack:
        for layer, hook in hooks.items():
            handle = detector.network.get_submodule(layer).register_forward_hook(hook)
            stack.callback(handle.remove)
        yield


def last_feature_map(detector: Detector, image: Tensor) -> str:
    """Name of the last module whose output is a feature map of more than one position.

    Modules that run more than once are skipped: which of their maps is meant would be unclear.

    Args:
        image: (1, 3, H, W) in [0, 1].

    Raises:
        ValueError: there is none.
    """
    runs: Counter[str] = Counter()
    maps: list[str] = []

    def record(name: str) -> Hook:
        def hook(_module: nn.Module, _inputs: object, out: object) -> None:
            runs[name] += 1
            if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] * out.shape[3] > 1:
                maps.append(name)

        return hook

    names = [name for name, _ in detector.network.named_modules() if name]
    with _hooked(detector, {name: record(name) for name in names}), torch.no_grad():
        detector(image)
    single = [name for name in maps if runs[name] == 1]
    if not single:
        raise ValueError(
            f"images of {tuple(image.shape[2:])} pixels leave no feature map of more than one "
            "position; use larger images"
        )
    return single[-1]
