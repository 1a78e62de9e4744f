"""Context managers that record or drop channels by hooks, and remove them on exit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tff.detectors.detector import Detector
from tff.detectors.feature_maps import find_channels
from tff.detectors.tokens import Grid

#: Replaces dropped channels: None for 0, or by layer what it computes for other images, or values
#: that broadcast to that.
Replacement = Mapping[str, Tensor] | None
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
        replacement: None for 0, or values for each layer with a dropped channel: raw values of
            other images, or such that broadcast to them, see `Channels.broadcast`.
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
            else:
                other, _ = every.apart(layer, replacement[layer].to(values))
                shape = [*apart.shape]
                shape[axis] = len(index)
                source = other.index_select(axis, index).expand(shape)
                apart.index_copy_(axis, index, source)
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

    In networks with attention: the last normalization of tokens with a place in the image that the
    logit depends on, see `to_map`. A class token reads the others before that.

    Modules that run more than once are skipped: which of their maps is meant would be unclear.

    Args:
        image: (1, 3, H, W) in [0, 1].

    Raises:
        ValueError: there is none.
    """
    attends = attends_to_tokens(detector)
    runs: Counter[str] = Counter()
    outputs: dict[str, Tensor] = {}
    convolved: list[Sequence[int]] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, _inputs: object, out: object) -> object:
            runs[name] += 1
            if not isinstance(out, Tensor):
                return None
            if isinstance(module, nn.Conv2d):
                convolved.append(out.shape)
            candidate = out.ndim == 4 if not attends else hasattr(module, "normalized_shape")
            if candidate and to_map(module, out, convolved) is not None:
                outputs[name] = out
            return out.clone() if attends else None  # not to be overwritten in place

        return hook

    with ExitStack() as stack, torch.set_grad_enabled(attends):
        for name, module in detector.network.named_modules():
            if name:
                stack.enter_context(module.register_forward_hook(record(name)))
        logit = detector(image.clone().requires_grad_(attends))
    single = [name for name in outputs if runs[name] == 1]
    if attends and single:
        slopes = torch.autograd.grad(logit.sum(), [outputs[n] for n in single], allow_unused=True)
        modules = [detector.network.get_submodule(name) for name in single]
        maps = [
            None if slope is None else to_map(module, slope, convolved)
            for module, slope in zip(modules, slopes, strict=True)
        ]
        single = [
            name
            for name, slope in zip(single, maps, strict=True)
            if slope is not None and _covers(image, slope) and slope.any()
        ]
    if not single:
        raise ValueError(
            f"{type(detector.network).__name__} has no normalization of tokens that have a place "
            "in the image; name a layer with analysis.cams.layer"
            if attends
            else f"images of {tuple(image.shape[2:])} pixels leave no feature map of more than one "
            "position; use larger images"
        )
    return single[-1]


def _covers(image: Tensor, found: Tensor) -> bool:
    """Whether the sides of a map are in the ratio of those of the image, unlike heads and tokens.

    (B, heads, T, width), from a normalization of queries, would be taken for a map.
    """
    rows, columns = found.shape[2:]
    return abs(rows * image.shape[3] - columns * image.shape[2]) <= max(image.shape[2:])


def attends_to_tokens(detector: Detector) -> bool:
    """Whether the network has attention heads, so that its maps are mostly tokens."""
    return "heads" in find_channels(detector.network).kinds.values()


def to_map(module: nn.Module, output: Tensor, convolved: Iterable[Sequence[int]]) -> Tensor | None:
    """Output of a module as a feature map (B, C, rows, columns); None if it is none.

    Args:
        module: the sizes of its parameters tell which axis holds the channels.
        output: (B, C, rows, columns), (B, rows, columns, C) or tokens (B, T, C).
        convolved: shapes of the outputs of the convolutions before it.
    """
    if output.ndim == 3:
        grid = Grid.find(output.shape[1], convolved)
        return grid.to_map(output) if grid else None
    if output.ndim != 4:
        return None
    widths = {len(parameter) for parameter in module.parameters()}
    last = output.shape[3] in widths and output.shape[1] not in widths
    found = output.permute(0, 3, 1, 2) if last else output
    return found if found.shape[2] * found.shape[3] > 1 else None
