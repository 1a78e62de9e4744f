"""AutoGAN: photographs, and reconstructions of them with the traces of an up-sampler.

After AutoGAN: X. Zhang, S. Karaman, S.-F. Chang, "Detecting and simulating artifacts in GAN fake
images", WIFS 2019. What tells a good reconstruction from its photograph is the trace of the
up-sampler, as in images of a GAN.

Enough for a demonstration and for tests; not for claims of accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tff.data.datamodule import SPLITS, Data
from tff.data.manifest import Manifest
from tff.data.synthetic import image_tree
from tff.data.synthetic.photographs import (
    Photograph,
    Split,
    digest,
    list_photographs,
    load_embedded,
    load_folder,
    sample_patches,
)
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
            batch = _to_tensor(sample_patches(photographs, BATCH, PATCH, rng))
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


RECIPE = 3  # part of a cached folder's name: raise it with every change that changes the images


@dataclass(frozen=True)
class AutoGANSettings:
    """What the images depend on.

    Args:
        photos: folder of the user's own photographs; None for those of the installed packages.
        seed: of the generators, of the crops and of the split of `photos`.
        size: side of the images in pixels, a multiple of 4.
        counts: real images (and as many fakes) of `train`, `val` and, per generator, of `test`.
        seen: generator to train and validate detectors on, a key of `autoencoder.UPSAMPLERS`.
        unseen: generators for the test only.
        steps: training steps of each generator.

    Raises:
        ValueError: a setting cannot be used; the message says why.
    """

    photos: Path | str | None = None
    seed: int = 0
    size: int = 64
    counts: Mapping[str, int] = field(
        default_factory=lambda: {"train": 1500, "val": 200, "test": 100}
    )
    seen: str = "nearest"  # as ProGAN, on which the published detectors are trained
    unseen: Sequence[str] = ("transposed4", "transposed3", "bilinear", "pixelshuffle")
    steps: int = 200

    def __post_init__(self) -> None:
        if self.size % 4 or self.size < 16:
            raise ValueError(f"size is {self.size}; it must be a multiple of 4, at least 16")
        image_tree.require_counts(self.counts)
        names = self.generators
        if len(set(names)) < len(names) or not set(names) <= set(UPSAMPLERS):
            raise ValueError(
                f"generators must be different ones of {', '.join(UPSAMPLERS)}: {names}"
            )

    @property
    def generators(self) -> tuple[str, ...]:
        """The seen generator, then the unseen ones."""
        return (self.seen, *self.unseen)

    @property
    def crop(self) -> int:
        """Side of what is reconstructed; its border is cut off: padding would give fakes away."""
        return self.size + 2 * MARGIN

    def photographs(self) -> Split:
        """Reads the photographs.

        Raises:
            ValueError: the folder of photographs cannot be used.
        """
        if self.photos is None:
            return load_embedded()
        return load_folder(Path(self.photos), self.seed, smallest=max(PATCH, self.crop))

    def plain(self) -> dict[str, Any]:
        """The settings as JSON holds them; the user's photographs by the digests of their bytes."""
        photos = self.photos and sorted(
            digest(file) for file in list_photographs(Path(self.photos))
        )
        return asdict(self) | {
            "counts": dict(self.counts),
            "unseen": list(self.unseen),
            "photos": photos,
        }

    def stream(self, *purpose: str) -> np.random.Generator:
        """Random numbers of their own for each purpose: one more generator changes no other."""
        return image_tree.random_stream(self.seed, *purpose)


def cached(root: Path, **settings: Any) -> Path:
    """The data set of these settings, built below `root` unless it is there.

    Args:
        root: holds one folder for each choice of `settings` (and bytes of the user's photographs).
        settings: those of `AutoGANSettings`.
    """
    chosen = AutoGANSettings(**settings)
    folder = image_tree.cache_folder(root, "autogan", RECIPE, chosen.plain())
    return folder if image_tree.is_complete(folder) else build(folder, chosen)


def build(folder: Path, settings: AutoGANSettings) -> Path:
    """Writes the data set as a tree of PNG files in the style of ForenSynths.

    `train/<seen>/{0_real,1_fake}/NNNN.png`, `val/<seen>/...`, `test/<generator>/...` for every
    generator, and `manifest.json`. Generators learn from the photographs of the training split
    only. Files of one name in 0_real and 1_fake are counterparts: the fake is the reconstruction of
    that very crop, and both are quantised and written alike. The folder appears when it is
    complete, never before; of two processes that race, the later one discards its own.

    Args:
        folder: to be written.
        settings: what the images depend on.

    Returns:
        `folder`.
    """
    split = settings.photographs()
    probe = sample_patches(split["val"], 50, settings.crop, settings.stream("probe"))
    errors = {}
    with image_tree.publish(folder) as draft:
        for name in settings.generators:
            parts = SPLITS if name == settings.seen else ("test",)
            weights = int(settings.stream("weights", name).integers(2**31))
            model = train(name, split["train"], weights, settings.steps)
            for part in parts:
                rng = settings.stream(part, name)
                crops = sample_patches(split[part], settings.counts[part], settings.crop, rng)
                image_tree.write_images(_inner(crops), draft / part / name / "0_real")
                image_tree.write_images(
                    _inner(reconstruct(model, crops)), draft / part / name / "1_fake"
                )
            difference = _inner(reconstruct(model, probe)).astype(float) - _inner(probe)
            errors[name] = round(float(np.abs(difference).mean()) / 255, 4)
        # Errors are of values in [0, 1].
        image_tree.write_description(draft, settings.plain(), split, l1_error_on_val_patches=errors)
    return folder


def _inner(crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return crops[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


class AutoGAN(Data):
    """Photographs and their counterfeits by small CNN generators, made on first use and kept.

    Zhang, Karaman and Chang, "Detecting and simulating artifacts in GAN fake images", WIFS 2019.

    Args:
        cache: folder in which the images are kept, one folder for each choice of settings.
        photos: folder of the user's own photographs; None: those that come with the dependencies.
        size: side of the square images, in pixels, all of which is used.
        steps: training steps of each generator.
        options: see `Data`.
    """

    def __init__(
        self,
        cache: str,
        photos: str | None = None,
        steps: int = 200,
        size: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(cache=cache, size=size, **options)
        self.folders, self.photos = Path(cache), Path(photos).expanduser() if photos else None
        self.steps = steps

    def prepare_data(self) -> None:
        """Train the generators and write the images, unless that was done before."""
        self.folder()

    def folder(self) -> Path:
        """Where the images are."""
        return cached(
            self.folders, photos=self.photos, seed=self.seed, size=self.size, steps=self.steps
        )

    def list_images(self, split: str) -> Manifest:
        """All images of a set."""
        return self._list_folder(self.folder() / split)
