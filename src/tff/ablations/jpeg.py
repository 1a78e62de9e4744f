"""What JPEG throws away: fine detail, fine color, and traces that hide in them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tff.ablations.options import one_of, whole

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
