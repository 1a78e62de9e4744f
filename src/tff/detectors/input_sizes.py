"""Sizes of images that a network can take, found before its first batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from tff.detectors.detector import Detector
from tff.detectors.frozen import freeze
from tff.types import Ints

#: Sizes that are tried of images of many sizes; the extremes are among them.
_MOST = 12
#: Sides of square images that are proposed: usual input sizes, which fit most strides and windows.
_SIDES = (32, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)


class InputSizes:
    """Sizes of images that the network of a detector can take.

    They are tried on a copy whose tensors have shapes but no content, so that nothing is computed.
    """

    def __init__(self, detector: Detector) -> None:
        self.name = type(detector.network).__name__
        self._network = detector.network
        self._shapes = _copy(detector.network).to("meta")
        self._refusals: dict[tuple[int, int], str | None] = {}

    def refusal(self, height: int, width: int) -> str | None:
        """Why the network cannot take images of a size, in its own words; None if it can."""
        size = height, width
        if size not in self._refusals:
            reason = _run(self._shapes, size)
            if reason is not None:  # some operations need numbers
                reason = _run(_copy(self._network), size)
            self._refusals[size] = reason
        return self._refusals[size]

    def propose_side(self, height: int, width: int) -> int | None:
        """Side of square images that the network can take, the next larger one if possible."""
        order = sorted(_SIDES, key=lambda side: (side < min(height, width), side))
        return next((side for side in order if self.refusal(side, side) is None), None)

    def require(self, sizes: Ints, names: Sequence[str]) -> None:
        """Refuse images of which the network cannot take some.

        Args:
            sizes: (N, 2) heights and widths.
            names: of the images.

        Raises:
            ValueError: names an image, its size, how many have it, and what to do.
        """
        if not len(sizes):
            return
        distinct, first, counts = np.unique(sizes, axis=0, return_index=True, return_counts=True)
        extremes = [int(key.argmin()) for key in (*distinct.T, -distinct.prod(axis=1))]
        others = np.linspace(0, len(distinct) - 1, _MOST - len(extremes)).astype(int).tolist()
        for i in dict.fromkeys([*extremes, *others]):
            height, width = map(int, distinct[i])
            if reason := self.refusal(height, width):
                side = self.propose_side(height, width)
                fitting = f"data.resize={side} data.crop=center{side}" if side else "data.resize=N"
                raise ValueError(
                    f"{names[first[i]]}: {height}x{width} pixels, as {counts[i]} of {len(sizes)} "
                    f"images; {self.name} cannot take this size ({reason}). Resize and crop the "
                    f"images ({fitting}), or use another network"
                )


@contextmanager
def explain_size(detector: Detector, image: Tensor) -> Iterator[None]:
    """In a training: say so if an error comes from the size of the images.

    Args:
        detector: that gets them.
        image: (B, 3, H, W); anything else is no image.

    Raises:
        ValueError: the network cannot take the size.
    """
    try:
        yield
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        if image.ndim != 4:
            raise
        height, width = image.shape[2:]
        sizes = InputSizes(detector)
        if (reason := sizes.refusal(height, width)) is None:
            raise
        side = sizes.propose_side(height, width)
        fitting = f"it takes data.size={side}" if side else "set another size of crops"
        raise ValueError(
            f"data.size: {sizes.name} cannot take images of {height}x{width} pixels ({reason}); "
            f"{fitting} (with data.resize=N for smaller images), or use another network "
            "(detector=...)"
        ) from error


def _copy(network: nn.Module) -> nn.Module:
    """A private copy, without the hooks that record or replace outputs."""
    private = freeze(network)
    for module in private.modules():
        module._forward_hooks.clear()
    return private


def _run(network: nn.Module, size: tuple[int, int]) -> str | None:
    """First line of the error that images of this size raise; None without one."""
    weight = next(network.parameters())
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, *size, device=weight.device, dtype=weight.dtype))
    except torch.OutOfMemoryError:
        return None
    except Exception as error:  # networks raise anything
        return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return None
