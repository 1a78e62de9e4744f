"""Tiny data set, detector and subject for tests of the whole pipeline."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tff.analyses.engine.subject import Subject
from tff.data.datamodule import Splits
from tff.data.folder import Folder
from tff.detectors.detector import Detector


def tree(root: Path, generators=("seen", "unseen"), images=6, size=32, seed=0) -> Path:
    """Write GENERATOR/{0_real,1_fake}/N.png; generated images are reddish and smoother."""
    random = np.random.default_rng(seed)
    for generator in generators:
        for label in ("0_real", "1_fake"):
            folder = root / generator / label
            folder.mkdir(parents=True)
            for number in range(images):
                image = random.integers(0, 256, (size, size, 3))
                if label == "1_fake":
                    image = image // 2 + np.array([90, 20, 20])
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{number}.png")
    return root


def splits(root: Path, **options) -> Splits:
    data = Folder(root=str(root), **options)
    images = data.images("all")
    seen = images.manifest[images.manifest["generator"] == "seen"].reset_index(drop=True)
    return Splits(discovery=type(images)(seen), test=images)


def pixels(images) -> torch.Tensor:
    """All images of a set at once, (N, 3, H, W) in [0, 1]."""
    return torch.stack([images[0, row].image for row in range(len(images))]).float() / 255


class Net(nn.Module):
    """Two convolutions with BatchNorm and a residual sum."""

    def __init__(self, width=6):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, 1)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)) + x)
        return self.fc(torch.flatten(self.pool(x), 1))


def detector(seed=0) -> Detector:
    """Detector with random channels and one that separates reddish images by a wide margin."""
    generator = torch.Generator().manual_seed(seed)
    net = Net()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    for norm in (net.bn1, net.bn2):
        norm.weight.data.fill_(1.0)
    red = torch.tensor([1.0, -0.5, -0.5]).view(3, 1, 1).expand(3, 3, 3) / 9
    net.conv1.weight.data[0] = red * 4
    net.fc.weight.data[0, 0], net.fc.bias.data[0] = 14.0, -15.0
    return Detector(net.eval(), tff_fraction=0.25)


def subject(root: Path, network: Detector | None = None, **options) -> Subject:
    options = {"draws": 50, "device": "cpu", **options}
    return Subject.of(network or detector(), splits(root), **options)


@cache
def _trained_transformer() -> VisionTransformer:
    """A transformer of two blocks, trained for a second to tell reddish images from noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = VisionTransformer(
            img_size=32, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=1
        )
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        labels = torch.arange(16) % 2
        shift = torch.tensor([90.0, 20.0, 20.0]).view(3, 1, 1) / 255
        for _ in range(60):
            image = torch.rand(16, 3, 32, 32)
            image = torch.where(labels.view(-1, 1, 1, 1) == 1, image / 2 + shift, image)
            logit = net((image - 0.5) / 0.25)[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logit, labels.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


def transformer() -> Detector:
    """A detector of reddish images by attention: 8 x 8 tokens and a class token."""
    network = copy.deepcopy(_trained_transformer())
    return Detector(network, tff_fraction=0.1, mean=(0.5,) * 3, std=(0.25,) * 3)
