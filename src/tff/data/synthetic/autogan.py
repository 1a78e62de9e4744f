"""AutoGAN: photographs, and their reconstructions with the traces of an up-sampler.

After X. Zhang, S. Karaman, S.-F. Chang, "Detecting and simulating artifacts in GAN fake images",
WIFS 2019. A good reconstruction differs from its photograph by the traces of the up-sampler, as an
image of a GAN does.

Enough for a demonstration and for tests; not for claims of accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tff.data.datamodule import SPLITS
from tff.data.synthetic import image_tree
from tff.data.synthetic.photographs import Photograph, photographs_of_patches, sample_patches
from tff.options import PATH, Allowed, checked, one_of, some_of, whole
from tff.progress import track
from tff.types import Pixels

RECIPE = 3  # part of a cached folder's name: raise it with every change that changes the images
MARGIN = 20  # pixels; farther from its border a reconstruction does not depend on the padding
PATCH = 32  # side of training patches in pixels: more steps on small patches beat the reverse
BATCH = 16
PEAK_RATE = 1e-2

_conv3x3 = partial(nn.Conv2d, kernel_size=3, padding=1)
#: Name -> module that maps (B, c, H, W) to (B, d, 2H, 2W).
UPSAMPLERS: dict[str, Callable[[int, int], nn.Module]] = {
    "transposed4": lambda c, d: nn.ConvTranspose2d(c, d, 4, stride=2, padding=1),
    "transposed3": lambda c, d: nn.ConvTranspose2d(c, d, 3, 2, padding=1, output_padding=1),
    "nearest": lambda c, d: nn.Sequential(nn.Upsample(None, 2), _conv3x3(c, d)),
    "bilinear": lambda c, d: nn.Sequential(nn.Upsample(None, 2, "bilinear"), _conv3x3(c, d)),
    "pixelshuffle": lambda c, d: nn.Sequential(_conv3x3(c, 4 * d), nn.PixelShuffle(2)),
}


#: Allowed sides of the images in pixels.
MULTIPLE_OF_4 = Allowed(
    lambda size: whole(16).holds(size) and size % 4 == 0, "a multiple of 4, at least 16"
)


class AutoGAN(image_tree.GeneratedSet):
    """Photographs and their reconstructions by small CNN generators, made on first use.

    Zhang, Karaman and Chang, "Detecting and simulating artifacts in GAN fake images", WIFS 2019.

    Args:
        cache: folder for the images, with a subfolder for each choice of settings.
        photos: folder with photographs of the user; None for those of installed packages.
        steps: training steps of each generator.
        size: side of the square images in pixels; training sees all of it.
        options: see `Data`.
    """

    @checked("data")
    def __init__(
        self,
        cache: Annotated[str, PATH],
        photos: Annotated[str, PATH] | None = None,
        steps: Annotated[int, whole(1)] = 200,
        size: Annotated[int, MULTIPLE_OF_4] = 64,
        **options: Any,
    ) -> None:
        super().__init__(cache=cache, size=size, **options)
        photos = str(Path(photos).expanduser()) if photos else None
        self.settings = AutoGANSettings(photos, self.seed, size, steps=steps)

    def folder(self) -> Path:
        return image_tree.get_or_build(self.cache, "autogan", RECIPE, self.settings, build)

    def find_sources(self) -> dict[str, list[str]]:
        return find_sources(self.settings)


@dataclass(frozen=True)
@checked("data")
class AutoGANSettings(image_tree.TreeSettings):
    """What the images depend on; see also `TreeSettings`.

    Args:
        size: side of the images in pixels, a multiple of 4.
        seen: generator of training and validation, a key of `UPSAMPLERS`.
        unseen: generators of the test only.
        steps: training steps of each generator.

    Raises:
        ValueError: a setting is not allowed.
    """

    size: Annotated[int, MULTIPLE_OF_4] = 64
    seen: str = "nearest"  # as in ProGAN, on which the published detectors are trained
    unseen: Sequence[str] = ("transposed4", "transposed3", "bilinear", "pixelshuffle")
    steps: Annotated[int, whole(1)] = 200

    def __post_init__(self) -> None:
        some_of(tuple(UPSAMPLERS)).require("generators", self.generators)

    @property
    def generators(self) -> tuple[str, ...]:
        """The seen generator, then the unseen ones."""
        return (self.seen, *self.unseen)

    def splits(self, generator: str) -> Sequence[str]:
        """Splits that hold images of a generator."""
        return SPLITS if generator == self.seen else ("test",)

    @property
    def crop(self) -> int:
        """Side of the crops to reconstruct; their borders, which show the padding, are cut off."""
        return self.size + 2 * MARGIN


def build(folder: Path, settings: AutoGANSettings) -> Path:
    """Write the data set as a tree of PNG files in the layout of ForenSynths.

    `train/<seen>/{0_real,1_fake}/NNNN.png`, `val/<seen>/...`, `test/<generator>/...` for every
    generator, and `manifest.json`. Generators are trained on the training photographs only. The
    file in 1_fake is the reconstruction of the crop of the same name in 0_real; both are quantized
    and written alike. The folder is complete as soon as it exists; if two processes write it, the
    later one discards its own.

    Returns:
        `folder`.
    """
    photographs = settings.load_photographs(max(PATCH, settings.crop))

    def stream(*purpose: str) -> np.random.Generator:
        return image_tree.random_stream(settings.seed, *purpose)

    probe = sample_patches(photographs["val"], 50, settings.crop, stream("probe"))
    errors = {}
    with image_tree.write_tree(folder) as draft:
        for name in settings.generators:
            weights = int(stream("weights", name).integers(2**31))
            model = train(name, photographs["train"], weights, settings.steps)
            for split in settings.splits(name):
                n_images, rng = settings.counts[split], stream(split, name)
                crops = sample_patches(photographs[split], n_images, settings.crop, rng)
                fakes = reconstruct(model, crops)
                image_tree.write_images(_cut_border(crops), draft / split / name / "0_real")
                image_tree.write_images(_cut_border(fakes), draft / split / name / "1_fake")
            difference = _cut_border(reconstruct(model, probe)).astype(float) - _cut_border(probe)
            errors[name] = round(float(np.abs(difference).mean()) / 255, 4)
        # Errors are of values in [0, 1].
        image_tree.write_description(draft, settings, photographs, l1_error_on_val_patches=errors)
    return folder


def find_sources(settings: AutoGANSettings) -> dict[str, list[str]]:
    """Folder of images, as `build` writes them -> the photograph of each image, by number."""
    photographs = settings.load_photographs(max(PATCH, settings.crop))
    found: dict[str, list[str]] = {}
    for name in settings.generators:
        for split in settings.splits(name):
            rng = image_tree.random_stream(settings.seed, split, name)
            names = photographs_of_patches(
                photographs[split], settings.counts[split], settings.crop, rng
            )
            found |= {f"{split}/{name}/{kind}": names for kind in ("0_real", "1_fake")}
    return found


def _cut_border(crops: Pixels) -> Pixels:
    return crops[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


class Autoencoder(nn.Module):
    """Auto-encoder with two strided convolutions and two up-samplers, as in AutoGAN.

    Args:
        width: channels at full resolution.
        code: channels at a quarter of the resolution; 12 numbers for 4x4 pixels leave a trace that
            a small detector learns from four photographs.
    """

    def __init__(self, upsampler: str, width: int = 16, code: int = 12) -> None:
        super().__init__()
        one_of(UPSAMPLERS).require("upsampler", upsampler)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            _conv3x3(2 * width, code),
            nn.LeakyReLU(0.2),
        )
        self.decoder = nn.Sequential(
            UPSAMPLERS[upsampler](code, 2 * width),
            nn.LeakyReLU(0.2),
            UPSAMPLERS[upsampler](2 * width, width),
            nn.LeakyReLU(0.2),
            _conv3x3(width, 3),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same shape, not clamped; 4 divides H and W."""
        reconstruction: Tensor = self.decoder(self.encoder(image))
        return reconstruction


def train(upsampler: str, photographs: Sequence[Photograph], seed: int, steps: int) -> Autoencoder:
    """Train an auto-encoder (L1 loss) on random patches, on the CPU in float32.

    The same seed gives the same weights on one machine with one number of threads. The global
    random state does not change.

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
    with torch.enable_grad():  # data may be requested within no_grad
        for _ in track(range(steps), f"generator {upsampler}"):
            batch = _to_tensor(sample_patches(photographs, BATCH, PATCH, rng))
            loss = F.l1_loss(model(batch), batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def reconstruct(model: Autoencoder, images: Pixels) -> Pixels:
    """(N, H, W, 3) uint8 -> reconstructions of the same shape, quantized to 8 bits."""
    parts = []
    for start in range(0, len(images), 50):
        image = model(_to_tensor(images[start : start + 50])).clamp(0, 1)
        parts.append(image.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def _to_tensor(images: Pixels) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [0, 1]; the memory stays channels-last."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
