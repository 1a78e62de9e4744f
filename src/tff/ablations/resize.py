"""The native resolution: an image is made smaller and larger again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor
from torch.nn.functional import interpolate

from tff.ablations.options import between, one_of

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
