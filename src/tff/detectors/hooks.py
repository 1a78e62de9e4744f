"""Hooks that record or drop channels, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from tff.detectors.detector import Detector

#: What stands in place of channels: a number each, or maps (B, C, H, W) of each layer.
Replacement = Tensor | Mapping[str, Tensor] | None
Hook = Callable[[nn.Module, object, Tensor], Tensor | None]


@contextmanager
def drop_channels(
    detector: Detector, channels: Tensor, replacement: Replacement = None
) -> Iterator[None]:
    """Feature-map dropout: the raw convolution output of these channels is 0, or something else.

    As in the released code this happens before BatchNorm, so that behind it the channel is a
    constant (its fused bias), not 0.

    Args:
        detector: in eval mode; unchanged after the block.
        channels: (k,) flat indices in `detector.channels`.
        replacement: None for 0, one value per channel of the detector (n_channels,), or the raw
            outputs (B, C, H, W) of other images for each layer with a dropped channel.
    """

    def exchange(layer: str, rows: Tensor) -> Hook:
        def hook(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
            where = rows.to(out.device)
            if replacement is None:
                return out.index_fill_(1, where, 0)
            if isinstance(replacement, Tensor):
                values = detector.channels.split(replacement.to(out))[layer][where]
                source = values.view(1, -1, 1, 1).expand(len(out), -1, *out.shape[2:])
            else:
                source = replacement[layer][:, where]
            return out.index_copy_(1, where, source)

        return hook

    masks = detector.channels.masks(channels)
    with _hooked(detector, {name: exchange(name, m.nonzero()[:, 0]) for name, m in masks.items()}):
        yield


@contextmanager
def record_outputs(detector: Detector, layers: list[str]) -> Iterator[dict[str, Tensor]]:
    """The raw outputs (B, C, H, W) of these layers for the batch that went through last.

    Where gradients are on, they reach the outputs, and what follows cannot write over them.
    """
    found: dict[str, Tensor] = {}

    def keep(layer: str) -> Hook:
        def hook(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
            found[layer] = out
            return out.clone() if torch.is_grad_enabled() else out

        return hook

    with _hooked(detector, {layer: keep(layer) for layer in layers}):
        yield found


class Responses:
    """Spatial maxima of the channels of the batch that went through last.

    For a channel whose BatchNorm has a negative scale this is the least active place behind it, as
    in the released code.
    """

    def __init__(self, detector: Detector) -> None:
        self._numbering = detector.channels
        self._of_layer: dict[str, Tensor] = {}

    def hook(self, layer: str) -> Hook:
        """Records this layer."""

        def record(_module: nn.Module, _inputs: object, out: Tensor) -> None:
            self._of_layer[layer] = out.amax((2, 3))

        return record

    def select(self, channels: Tensor) -> Tensor:
        """(B, k) in the order asked for; of layers that were recorded."""
        some = next(iter(self._of_layer.values()))
        full = some.new_zeros(len(some), len(self._numbering))
        for layer, values in self._of_layer.items():
            start = self._numbering.starts[layer]
            full[:, start : start + values.shape[1]] = values
        return full[:, channels.to(full.device)]


@contextmanager
def record_responses(detector: Detector, channels: Tensor) -> Iterator[Responses]:
    """Record the spatial maximum of each of these channels of every batch that runs in the block.

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
    """The module that is the last to give a feature map with several places: its name.

    Modules that run several times are left out, since their maps cannot be told apart.

    Args:
        image: (1, 3, H, W) in [0, 1].

    Raises:
        ValueError: there is none.
    """
    runs: dict[str, int] = {}
    maps: list[str] = []
    with ExitStack() as stack, torch.no_grad():
        for name, module in detector.network.named_modules():

            def record(_m: nn.Module, _i: object, out: object, name: str = name) -> None:
                runs[name] = runs.get(name, 0) + 1
                if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] * out.shape[3] > 1:
                    maps.append(name)

            if name:
                stack.callback(module.register_forward_hook(record).remove)
        detector(image)
    single = [name for name in maps if runs[name] == 1]
    if not single:
        raise ValueError(
            f"images of {tuple(image.shape[2:])} pixels leave no feature map with several places; "
            "take larger ones"
        )
    return single[-1]
