"""Context managers that record or drop channels by hooks, and remove them on exit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tff.detectors.detector import Detector

#: Replaces dropped channels: None for 0, one value per channel, or what layers compute for other
#: images, by layer.
Replacement = Tensor | Mapping[str, Tensor] | None
#: Takes what a layer computes (for heads what enters the output projection), and returns what
#: replaces it, or None.
Hook = Callable[[Tensor], Tensor | None]


@contextmanager
def drop_channels(
    detector: Detector, channels: Tensor, replacement: Replacement = None
) -> Iterator[None]:
    """Channel dropout: the raw values of these channels are set to 0, or replaced.

    As in the released code this happens before BatchNorm, after which the channel is a constant
    (its fused bias), not 0. Neurons are set to 0 before their activation, heads where they enter
    the output projection.

    Args:
        detector: in eval mode; unchanged after the block.
        channels: (k,) flat indices in `detector.channels`.
        replacement: None for 0, one value per channel of the detector (n_channels,), or the raw
            values of other images for each layer with a dropped channel.
    """
    every = detector.channels

    def replace(layer: str, rows: Tensor) -> Hook:
        def hook(values: Tensor) -> Tensor:
            index = rows.to(values.device)
            if every.kind(layer) == "heads":
                # A copy, since the attention may still need what it computed.
                values = values.clone(memory_format=torch.contiguous_format)
            apart, axis = every.apart(layer, values)
            if replacement is None:
                apart.index_fill_(axis, index, 0)
            elif isinstance(replacement, Tensor):
                shape = [1] * apart.ndim
                shape[axis] = len(index)
                of_channel = every.split(replacement.to(values))[layer][index].view(shape)
                source = of_channel.expand_as(apart.index_select(axis, index))
                apart.index_copy_(axis, index, source)
            else:
                other, _ = every.apart(layer, replacement[layer])
                apart.index_copy_(axis, index, other.index_select(axis, index))
            return values

        return hook

    masks = every.masks(channels)
    with _hooked(detector, {name: replace(name, m.nonzero()[:, 0]) for name, m in masks.items()}):
        yield


@contextmanager
def record_outputs(detector: Detector, layers: list[str]) -> Iterator[dict[str, Tensor]]:
    """Record what these layers compute for the latest batch, see `Channels.apart`.

    In-place operations after a layer do not overwrite it. With gradients enabled, it is part of the
    graph.
    """
    found: dict[str, Tensor] = {}

    def keep(layer: str) -> Hook:
        def hook(values: Tensor) -> Tensor:
            found[layer] = values
            return values.clone()

        return hook

    with _hooked(detector, {layer: keep(layer) for layer in layers}):
        yield found


class Responses:
    """Responses of channels, their maxima over places, for the latest batch.

    For a channel whose BatchNorm has a negative scale this is the least active position after it,
    as in the released code.
    """

    def __init__(self, detector: Detector) -> None:
        self._channels = detector.channels
        self._of_layer: dict[str, Tensor] = {}
        self.images = 0

    def hook(self, layer: str) -> Hook:
        """Hook that records this layer."""

        def record(values: Tensor) -> None:
            by_image = self._channels.by_image(layer, values, self.images)
            self._of_layer[layer] = self._channels.peak(layer, by_image)

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

    def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        responses.images = len(inputs[0])

    with (
        detector.network.register_forward_pre_hook(count),
        _hooked(detector, {layer: responses.hook(layer) for layer in layers}),
    ):
        yield responses


@contextmanager
def _hooked(detector: Detector, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Context in which hooks are called with what layers compute."""

    def at_input(hook: Hook) -> Any:
        return lambda _module, inputs: hook(inputs[0])

    def at_output(hook: Hook) -> Any:
        return lambda _module, _inputs, out: hook(out)

    with ExitStack() as stack:
        for layer, hook in hooks.items():
            module = detector.network.get_submodule(layer)
            if detector.channels.kind(layer) == "heads":
                stack.enter_context(module.register_forward_pre_hook(at_input(hook)))
            else:
                stack.enter_context(module.register_forward_hook(at_output(hook)))
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

    def record(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, out: object) -> None:
            runs[name] += 1
            if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] * out.shape[3] > 1:
                maps.append(name)

        return hook

    with ExitStack() as stack, torch.no_grad():
        for name, module in detector.network.named_modules():
            if name:
                stack.enter_context(module.register_forward_hook(record(name)))
        detector(image)
    single = [name for name in maps if runs[name] == 1]
    if not single:
        raise ValueError(
            f"images of {tuple(image.shape[2:])} pixels leave no feature map of more than one "
            "position; use larger images"
        )
    return single[-1]
