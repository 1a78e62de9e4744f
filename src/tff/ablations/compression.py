"""Traces of generation removed by compressing or resizing images."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tff.ablations.options import between, one_of, whole

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


@dataclass(frozen=True)
class JPEG:
    """Compress and decompress with Pillow, which works on the CPU and on pixels of 8 bits.

    Blocks of 8x8 begin at the first pixel. They are a trace of their own, which is added.

    Args:
        quality: 1 to 100.
        subsampling: of the chroma: `4:4:4` none, `4:2:2` every second column, `4:2:0` every second
            row and column.

    Raises:
        ValueError: an option is none of these.
    """

    quality: int = 50
    subsampling: Subsampling = "4:2:0"
    cue: ClassVar[str] = "JPEG-sensitive detail"

    def __post_init__(self) -> None:
        whole("quality", self.quality, 1, 100)
        one_of("subsampling", self.subsampling, get_args(Subsampling))

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same as it comes out of a JPEG file."""
        pixels = (image * 255).round().to(device="cpu", dtype=torch.uint8).permute(0, 2, 3, 1)
        read = torch.empty(pixels.shape, dtype=torch.uint8)
        for source, result in zip(pixels.contiguous().numpy(), read, strict=True):
            with io.BytesIO() as file:
                Image.fromarray(source).save(
                    file, "JPEG", quality=self.quality, subsampling=self.subsampling
                )
                result.copy_(torch.from_numpy(np.array(Image.open(file))))
        return read.permute(0, 3, 1, 2).to(image).div(255).contiguous()


Filter = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Resize:
    """Down by a factor and back up, antialiased, as Pillow resizes but not rounded to 8 bits.

    Each side is divided by the factor and rounded, to 1 pixel at least. The result holds no more
    than that many numbers tell.

    Args:
        factor: 1 to 64; 1 leaves the image as it is.
        filter: `bilinear` or `bicubic`, which is sharper and rings a little.

    Raises:
        ValueError: an option is none of these.
    """

    factor: float = 2.0
    filter: Filter = "bilinear"
    cue: ClassVar[str] = "native resolution"

    def __post_init__(self) -> None:
        between("factor", self.factor, 1, 64)
        one_of("filter", self.filter, get_args(Filter))

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same, coarser."""
        height, width = image.shape[-2:]
        small = (max(1, round(height / self.factor)), max(1, round(width / self.factor)))
        # In channels-last, PyTorch 2.15 is wrong where the small width is 1 or 2.
        image = image.contiguous()
        down = interpolate(image, small, mode=self.filter, antialias=True).contiguous()
        return interpolate(down, (height, width), mode=self.filter, antialias=True).clamp(0, 1)
