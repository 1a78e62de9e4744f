"""Cues hidden by noise: added to pixels, or in place of phases.

So an image gets the same numbers in whatever batch, process or analysis it is seen again, and
different images get independent ones: what one draw does by chance averages out over images, and
intervals over images contain it. One pattern for all images would be one draw for the whole study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tff.ablations.options import above_zero, between, whole


def image_noise(image: Tensor, shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal numbers for each image of a batch.

    Args:
        image: (B, C, H, W) in [0, 1].
        shape: of the numbers for one image.
        seed: another seed gives other numbers for all images.

    Returns:
        (B, *shape), of the dtype and on the device of the image. They are drawn on the CPU, since
        generators differ between devices, and from pixels rounded to 8 bits, since a last bit must
        not change them all.
    """
    rounded = (image * 255).round().to(device="cpu", dtype=torch.uint8)
    drawn = image.new_empty((len(image), *shape), device="cpu", dtype=torch.float32)
    for pixels, numbers in zip(rounded, drawn, strict=True):
        told = hashlib.blake2b(str(seed).encode(), digest_size=7)  # seeds have 63 bits
        told.update(pixels.contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(int.from_bytes(told.digest()))
        numbers.normal_(generator=generator)
    return drawn.to(image)


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
        noise = image_noise(image, image.shape[1:], self.seed)
        return noise.mul_(self.sigma / 255).add_(image).clamp_(0, 1)


@dataclass(frozen=True)
class Phase:
    """A random angle is added to each frequency's phase, the same one in all three channels.

    The amplitudes of the Fourier transform stay, and so do the differences of phase between
    channels: colors keep their relation, and the mean its color. What leaves [0, 1] is cut off,
    which changes amplitudes a little. The image is not mirrored at its borders, for of a mirrored
    one only a quarter would be shown, with other amplitudes.

    A. V. Oppenheim and J. S. Lim, "The importance of phase in signals", Proc. IEEE 1981.

    Args:
        strength: angles are uniform between -strength and strength times 180 degrees; 0 leaves the
            image as it is.
        seed: another seed is another draw; see `draws`.

    Raises:
        ValueError: an option is outside of its range.
    """

    strength: float = 1.0
    seed: int = 0
    cue: ClassVar[str] = "structure"

    def __post_init__(self) -> None:
        between("strength", self.strength, 0, 1)
        whole("seed", self.seed, 0, 2**32 - 1)

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same with scrambled phases."""
        size = image.shape[-2:]
        spectrum = torch.fft.rfft2(image.contiguous())
        spectrum *= self._turns(image).unsqueeze(1)
        scrambled: Tensor = torch.fft.irfft2(spectrum, s=size)
        return scrambled.clamp(0, 1)

    def _turns(self, image: Tensor) -> Tensor:
        """(B, H, W // 2 + 1) complex numbers of length 1, as far as the strength goes.

        The transform of real noise has a uniform phase, and opposite ones at opposite frequencies,
        as a real image has. Frequencies that are their own opposite must stay real: they change
        sign or not. The mean stays.
        """
        height, width = image.shape[-2:]
        noise = torch.fft.rfft2(image_noise(image, (height, width), self.seed))
        turns = torch.exp(1j * self.strength * noise.angle())
        for row in {0, height // 2 if height % 2 == 0 else 0}:
            for column in {0, width // 2 if width % 2 == 0 else 0}:
                flipped = (noise[:, row, column].real < 0) & (self.strength > 0.5)
                turns[:, row, column] = torch.where(flipped, -1.0, 1.0).to(turns)
        turns[:, 0, 0] = 1
        return turns
