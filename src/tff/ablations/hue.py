"""The hue: all colors get the same one, or all are turned around the circle of hues."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from tff.ablations.luma import apart, together
from tff.ablations.options import between, one_of

Mode = Literal["one", "turn"]


@dataclass(frozen=True)
class Hue:
    """Hue is the angle of (Cb, Cr); luma and saturation of every pixel stay.

    Where a color of the new hue, the old luma and saturation does not exist, the saturation is
    scaled down (see `luma`).

    Args:
        angle: degrees, -360 to 360. Red lies at 109, yellow at 171, green at 232, cyan at 289,
            blue at 351, magenta at 52.
        mode: `one` gives every pixel the hue `angle`; `turn` adds `angle` to every hue, so that
            differences of hue stay.

    Raises:
        ValueError: an option is none of these.
    """

    angle: float = 120.0
    mode: Mode = "one"
    cue: ClassVar[str] = "hue"

    def __post_init__(self) -> None:
        between("angle", self.angle, -360, 360)
        one_of("mode", self.mode, get_args(Mode))

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same without its hues."""
        brightness, chroma = apart(image)
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        blue, red = chroma.unbind(1)
        if self.mode == "one":
            blue, red = torch.hypot(blue, red), torch.zeros_like(red)
        turned = torch.stack([cos * blue - sin * red, sin * blue + cos * red], dim=1)
        return together(brightness, turned)
