"""Types shared by all parts: a batch of images, the numbering of channels, a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]


class Batch(NamedTuple):
    """Batch of a loader.

    Shape:
        image: (B, 3, H, W), uint8 as it leaves a worker, float32 in [0, 1] once on the device.
        label: (B,) int64, 0 real, 1 generated.
        index: (B,) int64, rows of the manifest.
    """

    image: Tensor
    label: Tensor
    index: Tensor  # type: ignore[assignment]  # nobody searches a batch as a tuple


#: Kinds of channels: outputs of a convolution, of the convolution that makes tokens of an image, of
#: a linear layer before an activation, and attention heads.
KINDS = ("conv", "embedding", "neurons", "heads")
#: The same in the words of sentences.
KIND_WORDS = {
    "conv": "channels of convolutions",
    "embedding": "channels of the patch embedding",
    "neurons": "neurons",
    "heads": "attention heads",
}


@dataclass(frozen=True)
class Channels:
    """Numbering of the channels of all layers: flat index <-> (layer, channel).

    Channels are whatever can be ranked and dropped, of the kinds `KINDS`.

    Args:
        widths: number of channels per layer, in the order of the network.
        kinds: kind of each layer that is not `conv`.
        first: output of a layer that is its first channel, where that is not 0: some layers of
            neurons compute a gate as well, whose outputs are no channels.
    """

    widths: Mapping[str, int]
    kinds: Mapping[str, str] = field(default_factory=dict)
    first: Mapping[str, int] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        """Layer names in the order of the network."""
        return list(self.widths)

    @cached_property
    def starts(self) -> dict[str, int]:
        """Flat index of the first channel of each layer."""
        ends = np.cumsum([0, *self.widths.values()])
        return dict(zip(self.widths, ends.tolist(), strict=False))

    def kind(self, layer: str) -> str:
        """Kind of the channels of a layer, one of `KINDS`."""
        return self.kinds.get(layer, "conv")

    @cached_property
    def kind_numbers(self) -> Ints:
        """(n_channels,) position of the kind of each channel in `KINDS`."""
        numbers = [KINDS.index(self.kind(layer)) for layer in self.widths]
        return np.repeat(np.array(numbers, np.int64), list(self.widths.values()))

    def apart(self, layer: str, values: Tensor) -> tuple[Tensor, int]:
        """Values that a layer computes, with one axis for its channels, and the number of the axis.

        (B, C, H, W) as it is for convolutions, (..., C) for neurons, (..., heads, width) for heads,
        whose (..., heads * width) enters the output projection. A view, if that is possible.
        """
        kind = self.kind(layer)
        if kind == "heads":
            return values.reshape(*values.shape[:-1], self.widths[layer], -1), -2
        return (values[..., self.rows(layer)], -1) if kind == "neurons" else (values, 1)

    def rows(self, layer: str) -> slice:
        """Rows of the weight of a layer that make its channels, all unless it has a gate too."""
        first = self.first.get(layer, 0)
        return slice(first, first + self.widths[layer])

    def by_image(self, layer: str, values: Tensor, images: int) -> Tensor:
        """Values that a layer computes, (B, C, ...): what belongs to one channel of one image.

        Args:
            layer: name.
            values: its output, or for heads the input of the output projection. Their first axis
                may hold the windows of each image.
            images: B.
        """
        apart, axis = self.apart(layer, values)
        if axis == 1:
            return apart
        rest = apart.shape[axis + 1 :] if axis == -2 else ()
        return apart.reshape(images, -1, self.widths[layer], *rest).movedim(2, 1)

    def broadcast(self, layer: str, values: Tensor) -> Tensor:
        """One value per channel of a layer, in the shape that broadcasts to what it computes.

        Args:
            layer: name.
            values: (C,), or (heads * width,) for heads, whose values are vectors.
        """
        if self.kind(layer) in ("neurons", "heads"):
            return F.pad(values, (self.first.get(layer, 0), 0))
        return values.view(1, -1, 1, 1)

    def peak(self, layer: str, values: Tensor) -> Tensor:
        """Largest response of each channel over places, (B, C, ...) -> (B, C).

        Args:
            layer: name.
            values: from `by_image`.
        """
        values = self.strength(layer, values)
        return values.amax(tuple(range(2, values.ndim)))

    def strength(self, layer: str, values: Tensor) -> Tensor:
        """Response at each place: the value, or for heads the length of (..., width)."""
        return values.norm(dim=-1) if self.kind(layer) == "heads" else values

    def __len__(self) -> int:
        return sum(self.widths.values())

    def flat_index(self, layer: str, channel: int) -> int:
        """Flat index of one channel of a layer.

        Raises:
            KeyError: no such layer, or the layer has fewer channels.
        """
        if layer not in self.widths:
            raise KeyError(f"unknown layer {layer!r}; the network has {', '.join(self.widths)}")
        width = self.widths[layer]
        if not 0 <= channel < width:
            raise KeyError(f"layer {layer!r} has {width} channels; no channel {channel}")
        return self.starts[layer] + channel

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """(..., n_channels) -> one (..., C) tensor per layer."""
        parts = torch.split(flat, [*self.widths.values()], dim=-1)
        return dict(zip(self.widths, parts, strict=True))

    def join(self, by_layer: Mapping[str, Tensor]) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([by_layer[layer] for layer in self.widths], dim=-1)

    def masks(self, flat: Tensor) -> dict[str, Tensor]:
        """Boolean (C,) mask per layer with a channel among the flat indices (k,)."""
        chosen = torch.zeros(len(self), dtype=torch.bool)
        chosen[flat] = True
        return {layer: mask for layer, mask in self.split(chosen).items() if mask.any()}

    def table(self) -> pd.DataFrame:
        """One row per channel, in flat order: columns `layer`, `channel`.

        And `kind`, if some are no channels of convolutions.
        """
        widths = list(self.widths.values())
        channels = np.concatenate([np.arange(width) for width in [0, *widths]])
        table = pd.DataFrame({"layer": np.repeat(self.layers, widths), "channel": channels})
        if self.kinds:
            table["kind"] = np.repeat([self.kind(layer) for layer in self.layers], widths)
        return table

    def count_kinds(self, flat: Ints) -> dict[str, tuple[int, int]]:
        """Kind -> number of channels of the kind among some, and among all, in order of `KINDS`.

        Args:
            flat: (k,) flat indices.
        """
        some, everything = (
            np.bincount(numbers, minlength=len(KINDS))
            for numbers in (self.kind_numbers[flat], self.kind_numbers)
        )
        return {
            kind: (int(a), int(b)) for kind, a, b in zip(KINDS, some, everything, strict=True) if b
        }

    def names(self) -> list[str]:
        """Name of each channel, such as `conv1 #9`, in flat order."""
        return [f"{layer} #{i}" for layer, width in self.widths.items() for i in range(width)]


@dataclass
class Result:
    """Result of an analysis, for people (findings, figures) and programs (tables, scalars).

    Attributes:
        title: heading of the section in the report.
        about: method and how to read the results; paragraphs are separated by an empty line.
        findings: sentences that state the outcome with its numbers; they open the report.
        tables: name of the CSV file (without extension) -> table.
        figures: name of the image file -> figure.
        captions: name of a figure -> its caption.
        opening: names of the figures with which the report opens, before the section of the
            analysis.
        scalars: name -> number, for the logger and `summary.json`.
        warnings: caveats to know before trusting the numbers.
        alarms: reasons why the numbers may be meaningless.
    """

    title: str
    about: str = ""
    findings: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    opening: list[str] = field(default_factory=list)
    scalars: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
