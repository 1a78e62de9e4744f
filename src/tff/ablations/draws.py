"""Random numbers for an image, from a seed and the image's own pixels.

So an image gets the same numbers in whatever batch, process or analysis it is seen again, and
different images get independent ones: what one draw does by chance averages out over images, and
intervals over images contain it. One pattern for all images would be one draw for the whole study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def normal(image: Tensor, shape: Sequence[int], seed: int) -> Tensor:
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
