"""Counterfeits by up-sampling: auto-encoders whose decoders differ in one operation.

After AutoGAN: X. Zhang, S. Karaman, S.-F. Chang, "Detecting and simulating artifacts in GAN fake
images", WIFS 2019. What tells a good reconstruction from its photograph is the trace of the
up-sampler, as in images of a GAN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tff.data.patches import patches
from tff.data.photographs import Photograph
from tff.progress import track

MARGIN = 20  # pixels; farther from its border a reconstruction does not see the padding
PATCH = 32  # side in pixels of what is trained on: more steps on less are better than the reverse
BATCH = 16
PEAK_RATE = 1e-2

UPSAMPLERS: dict[str, Callable[[int, int], nn.Module]] = {
    "transposed4": lambda c, d: nn.ConvTranspose2d(c, d, 4, stride=2, padding=1),
    "transposed3": lambda c, d: nn.ConvTranspose2d(c, d, 3, 2, padding=1, output_padding=1),
    "nearest": lambda c, d: nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(c, d, 3, padding=1)
    ),
    "bilinear": lambda c, d: nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(c, d, 3, padding=1)
    ),
    "pixelshuffle": lambda c, d: nn.Sequential(
        nn.Conv2d(c, 4 * d, 3, padding=1), nn.PixelShuffle(2)
    ),
}
"""Name -> module that maps (B, c, H, W) to (B, d, 2H, 2W)."""


class Autoencoder(nn.Module):
    """Halves an image twice by strided convolutions and doubles it twice by the chosen up-sampler.

    Two stages, as the generator of AutoGAN has them.

    Args:
        upsampler: a key of `UPSAMPLERS`.
        width: channels at full resolution.
        code: channels at a quarter of the resolution; 12 numbers for 4x4 pixels leave a trace that
            a small detector learns from four photographs.

    Raises:
        ValueError: the up-sampler is unknown.
    """

    def __init__(self, upsampler: str, width: int = 16, code: int = 12) -> None:
        super().__init__()
        if upsampler not in UPSAMPLERS:
            raise ValueError(f"unknown up-sampler {upsampler!r}; there are {', '.join(UPSAMPLERS)}")
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, code, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.decoder = nn.Sequential(
            UPSAMPLERS[upsampler](code, 2 * width),
            nn.LeakyReLU(0.2),
            UPSAMPLERS[upsampler](2 * width, width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same shape, not clamped; 4 divides H and W."""
        reconstruction: Tensor = self.decoder(self.encoder(image))
        return reconstruction


def train(
    upsampler: str,
    photographs: Sequence[Photograph],
    seed: int,
    steps: int,
) -> Autoencoder:
    """Trains an auto-encoder (L1) on random patches, on the CPU in float32.

    The same seed gives the same weights on one machine with one number of threads. The global
    random state is left as it was.

    Args:
        upsampler: a key of `UPSAMPLERS`.
        photographs: at least `PATCH` pixels on each side.
        seed: of the weights and of the patches.
        steps: optimizer steps of `BATCH` patches.
    """
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global state
        torch.default_generator.manual_seed(seed)
        model = Autoencoder(upsampler)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=steps, pct_start=0.15
    )
    model.to(memory_format=torch.channels_last).train()
    with torch.enable_grad():  # whoever asks for data may stand inside no_grad
        for _ in track(range(steps), f"generator {upsampler}"):
            batch = _to_tensor(patches(photographs, BATCH, PATCH, rng))
            loss = F.l1_loss(model(batch), batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def reconstruct(model: Autoencoder, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) uint8 -> reconstructions of the same shape, quantised to 8 bits."""
    parts = []
    for start in range(0, len(images), 50):
        image = model(_to_tensor(images[start : start + 50])).clamp(0, 1)
        parts.append(image.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def _to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [0, 1]; the memory stays channels-last."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
