"""Cues masked by noise, added to pixels or to phases.

The noise is a function of the seed and of the image itself. An image gets the same noise in every
batch, process and analysis, and different images get independent noise: chance averages out over
images, and intervals over images cover it. One pattern for all images would be a single draw for
the entire study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from tff.options import checked, number, whole


def image_noise(image: Tensor, shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal numbers for each image of a batch, (B, *shape).

    They are drawn on the CPU, since generators differ between devices, and seeded by pixels rounded
    to 8 bits, since a last bit must not change them all.

    Args:
        image: (B, C, H, W) in [0, 1].
        shape: of the numbers of one image.
        seed: combined with the pixels; another seed gives other numbers for all images.

    Returns:
        Noise of the dtype and on the device of the image.
    """
    rounded = (image * 255).round().to(device="cpu", dtype=torch.uint8)
    noise = image.new_empty((len(image), *shape), device="cpu", dtype=torch.float32)
    for pixels, numbers in zip(rounded, noise, strict=True):
        digest = hashlib.blake2b(str(seed).encode(), digest_size=7)  # seeds have 63 bits
        digest.update(pixels.contiguous().numpy().tobytes())
        generator = torch.Generator().manual_seed(int.from_bytes(digest.digest()))
        numbers.normal_(generator=generator)
    return noise.to(image)


@dataclass(frozen=True)
@checked("ablation")
class Noise:
    """Normal noise, independent in every pixel, channel and image, clipped to [0, 1].

    Args:
        sigma: standard deviation in levels of 1/255.
        seed: see `image_noise`.
    """

    sigma: Annotated[float, number(above=0, most=255)] = 8.0
    seed: Annotated[int, whole(0, 2**32 - 1)] = 0
    cue: ClassVar[str] = "faint traces"

    def __call__(self, image: Tensor) -> Tensor:
        noise = image_noise(image, image.shape[1:], self.seed)
        return noise.mul_(self.sigma / 255).add_(image).clamp_(0, 1)


@dataclass(frozen=True)
@checked("ablation")
class Phase:
    """A random angle added to the phase of each frequency, the same one in all three channels.

    Amplitudes of the Fourier transform stay, and so do phase differences between channels: colors
    keep their relation, and the mean its color. Clipping to [0, 1] changes amplitudes a little. The
    image is not mirrored at its borders: the visible quarter of a mirrored one would have other
    amplitudes.

    A. V. Oppenheim and J. S. Lim, "The importance of phase in signals", Proc. IEEE 1981.

    Args:
        strength: angles are uniform between -strength and strength times 180 degrees; 0 leaves the
            image as it is.
        seed: see `image_noise`.
    """

    strength: Annotated[float, number(0, 1)] = 1.0
    seed: Annotated[int, whole(0, 2**32 - 1)] = 0
    cue: ClassVar[str] = "structure"

    def __call__(self, image: Tensor) -> Tensor:
        size = image.shape[-2:]
        spectrum = torch.fft.rfft2(image.contiguous())
        spectrum *= self._rotations(image).unsqueeze(1)
        scrambled: Tensor = torch.fft.irfft2(spectrum, s=size)
        return scrambled.clamp(0, 1)

    def _rotations(self, image: Tensor) -> Tensor:
        """(B, H, W // 2 + 1) complex numbers of length 1.

        The transform of real noise has uniform phases, opposite at opposite frequencies as a real
        image requires. Frequencies that are their own opposite must stay real: their sign flips or
        not. The mean stays.
        """
        height, width = image.shape[-2:]
        noise = torch.fft.rfft2(image_noise(image, (height, width), self.seed))
        rotations = torch.exp(1j * self.strength * noise.angle())
        for row in {0, height // 2 if height % 2 == 0 else 0}:
            for column in {0, width // 2 if width % 2 == 0 else 0}:
                flipped = (noise[:, row, column].real < 0) & (self.strength > 0.5)
                rotations[:, row, column] = torch.where(flipped, -1.0, 1.0).to(rotations)
        rotations[:, 0, 0] = 1
        return rotations
