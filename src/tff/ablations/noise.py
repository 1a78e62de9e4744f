"""Faint traces: noise drowns what is weaker than itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tff.ablations.draws import normal
from tff.ablations.options import above_zero, whole


@dataclass(frozen=True)
class Noise:
    """Normal noise, independent in every pixel and channel, drawn anew for each image.

    What leaves [0, 1] is cut off. See `draws` for how an image gets its noise.

    Args:
        sigma: standard deviation in levels of 1/255, above 0, at most 255.
        seed: another seed is another draw.

    Raises:
        ValueError: an option is outside of its range.
    """

    sigma: float = 8.0
    seed: int = 0
    cue: ClassVar[str] = "faint traces"

    def __post_init__(self) -> None:
        above_zero("sigma", self.sigma, 255)
        whole("seed", self.seed, 0, 2**32 - 1)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same with noise."""
        noise = normal(image, image.shape[1:], self.seed)
        return noise.mul_(self.sigma / 255).add_(image).clamp_(0, 1)
