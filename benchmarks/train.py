"""Images per second of training: ours against a plain loop with the original recipe.

python benchmarks/train.py [--network resnet50] [--batch 64] [--steps 20] [--workers N] [--compile]

Plain loop: float32, default memory format, Adam without fusing, images decoded and augmented by
SciPy, Pillow and torchvision, as published by Wang et al. (CVPR 2020). Ours: the module trained by
`train.py`, channels-last, fused Adam, uint8 up to the device, bfloat16 on a GPU. Both read the same
JPEG files of 256 px. Prints images per second of the step alone and with loading, and the share of
time spent waiting for the loader.
"""

import io
import os
import random
import tempfile
import time
from functools import partial
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
import torchvision
from common import option_parser, write_images
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from tff.augmentations.blur import GaussianBlur
from tff.augmentations.jpeg import JPEG
from tff.data.folder import Folder
from tff.detectors.detector import IMAGENET_MEAN, IMAGENET_STD
from tff.detectors.torchvision_models import torchvision_model
from tff.startup import prepare_process
from tff.training.module import UniversalDetector
from tff.types import Batch


def original(image):
    """Blur and JPEG with p = 0.5 each, on a Pillow image."""
    pixels = np.array(image)
    if random.random() < 0.5:
        sigma = random.uniform(0, 3)
        for channel in range(3):
            gaussian_filter(pixels[..., channel], output=pixels[..., channel], sigma=sigma)
    if random.random() < 0.5:
        quality = random.randint(30, 100)
        if random.random() < 0.5:
            _, code = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            pixels = cv2.imdecode(code, 1)[..., ::-1]
        else:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=quality)
            pixels = np.array(Image.open(file))
    return Image.fromarray(pixels)


def plain(root, args, device):
    """The original recipe: a loader and a function for one step."""
    pipeline = transforms.Compose([
        transforms.Resize(256),
        transforms.Lambda(original),
        transforms.RandomCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ])  # fmt: skip
    folder = torchvision.datasets.ImageFolder(str(root / "train" / "g"), pipeline)
    loader = DataLoader(folder, args.batch, shuffle=True, num_workers=args.workers, drop_last=True)
    net = torchvision.models.get_model(args.network, num_classes=1).to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-4, foreach=False)

    def step(batch):
        image, label = (tensor.to(device) for tensor in batch)
        loss = F.binary_cross_entropy_with_logits(net(image).squeeze(1), label.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return loader, step


def ours(root, args, device):
    """As `train.py` with `aug=blur_jpeg`: a loader and a function for one step."""
    pipeline = A.Compose([GaussianBlur(), JPEG(), A.RandomCrop(224, 224), A.HorizontalFlip()])
    augmentation = {"train": pipeline}
    data = Folder(str(root), augmentation=augmentation, batch_size=args.batch, workers=args.workers)
    detector = torchvision_model(args.network, pretrained=False)
    adam = partial(torch.optim.Adam, lr=1e-4, fused=True)
    module = UniversalDetector(detector, adam, compile=args.compile).to(device).train()
    module.log = module.log_dict = lambda *_, **__: None  # there is no trainer
    optimizer = module.configure_optimizers()
    gpu = device.type == "cuda"

    def step(batch):
        moved = Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))
        with torch.autocast(device.type, torch.bfloat16, enabled=gpu):
            loss = module.training_step(module.on_after_batch_transfer(moved, 0), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return data.train_dataloader(), step


def forever(loader):
    while True:
        yield from loader


def measure(loader, step, steps, device):
    """Seconds per step: waiting for the loader, in total, without loading."""

    def now():
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    batches = forever(loader)
    for _ in range(3):
        batch = next(batches)
        step(batch)
    waited, start = 0.0, now()
    for _ in range(steps):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        step(batch)
    both = now() - start
    start = now()
    for _ in range(steps):
        step(batch)
    return waited / steps, both / steps, (now() - start) / steps


def main():
    defaults = {"network": "resnet50", "batch": 64, "steps": 20, "images": 512}
    parser = option_parser(__doc__, **defaults, workers=os.cpu_count(), compile=False)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "train" / "g", args.images, 256, 64)
        for name, make in (("plain loop", plain), ("tff", ours)):
            waited, both, alone = measure(*make(root, args, device), args.steps, device)
            speeds[name] = args.batch / both, args.batch / alone
            print(
                f"{name:10} {args.batch / both:8.1f} images/s, step alone "
                f"{args.batch / alone:8.1f} images/s, waiting for the loader "
                f"{100 * waited / both:.0f} % of the time"
            )
    loading, alone = (ours / theirs for theirs, ours in zip(*speeds.values(), strict=True))
    print(f"tff / plain loop: {loading:.2f}, step alone {alone:.2f}")
    print(f"{args.network}, 224 px, batch {args.batch}, {device}, {args.workers} workers")


if __name__ == "__main__":
    prepare_process()
    main()
