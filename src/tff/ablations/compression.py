"""Fine traces removed by JPEG compression, or by resizing down and up again."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tff.options import checked, number, whole


@dataclass(frozen=True)
@checked("ablation")
class JPEG:
    """JPEG compression and decompression by Pillow, on the CPU and on 8-bit pixels.

    The grid of 8x8 blocks starts at the first pixel. Blocks are a trace that is added.

    Args:
        quality: as Pillow counts it.
        subsampling: of the chroma: `4:4:4` none, `4:2:2` every second column, `4:2:0` every second
            row and column.
    """

    quality: Annotated[int, whole(1, 100)] = 50
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
    cue: ClassVar[str] = "JPEG-sensitive detail"

    def __call__(self, image: Tensor) -> Tensor:
        pixels = (image * 255).round().to(device="cpu", dtype=torch.uint8).permute(0, 2, 3, 1)
        decoded = torch.empty(pixels.shape, dtype=torch.uint8)
        for source, result in zip(pixels.contiguous().numpy(), decoded, strict=True):
            with io.BytesIO() as file:
                Image.fromarray(source).save(
                    file, "JPEG", quality=self.quality, subsampling=self.subsampling
                )
                result.copy_(torch.from_numpy(np.array(Image.open(file))))
        return decoded.permute(0, 3, 1, 2).to(image).div(255).contiguous()


@dataclass(frozen=True)
@checked("ablation")
class Resize:
    """Down by a factor and back up, antialiased as Pillow does, but not rounded to 8 bits.

    Each side is divided by the factor and rounded, to 1 pixel at least. The result holds only what
    an image of that size can hold.

    Args:
        factor: 1 leaves the image as it is.
        filter: `bilinear`, or `bicubic`, which is sharper and rings a little.
    """

    factor: Annotated[float, number(1, 64)] = 2.0
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    cue: ClassVar[str] = "native resolution"

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        small = (max(1, round(height / self.factor)), max(1, round(width / self.factor)))
        # In channels-last, PyTorch 2.15 is wrong where the small width is 1 or 2.
        image = image.contiguous()
        down = interpolate(image, small, mode=self.filter, antialias=True).contiguous()
        return interpolate(down, (height, width), mode=self.filter, antialias=True).clamp(0, 1)
