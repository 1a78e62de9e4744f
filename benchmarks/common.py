"""Parts that several benchmarks share: options, networks, images, times."""

import argparse
import time

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from torch import nn


def option_parser(doc, **defaults):
    """Parser whose options have the types of their defaults: False is a flag, a list has elements.

    Args:
        doc: docstring of the benchmark; its first line describes the command.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, default in defaults.items():
        if default is False:
            parser.add_argument(f"--{name}", action="store_true")
        elif isinstance(default, list):
            parser.add_argument(f"--{name}", nargs="*", type=type(default[0]), default=default)
        else:
            parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser


def write_images(root, count, size, detail, **save):
    """Write smooth noise, real and generated in turn, as ROOT/{0_real,1_fake}/NUMBER.jpg.

    Args:
        detail: side of the random pixels from which an image of side `size` is enlarged.
        save: options of Pillow for the JPEG file.
    """
    random = np.random.default_rng(0)
    for i in range(count):
        folder = root / ("0_real", "1_fake")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (detail, detail, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", **save)


def noise(batch, size):
    """Channels-last noise images (batch, 3, size, size)."""
    return torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)


def time_in_turn(runs, arguments, rounds):
    """Seconds of each run in each round; all are timed in turn, so that noise affects all alike.

    Args:
        runs: name -> function.
        arguments: of all functions.
    """
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(*arguments)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(seconds, other):
    """Median over rounds of the ratio of two times."""
    return float(np.median(np.divide(seconds, other)))


def network(name, size=224):
    """Network of torchvision, or of timm if its name starts with `timm.`, with one logit.

    BatchNorms have random weights and statistics of random images, so that activations neither
    vanish nor explode, as they do in freshly initialised networks.
    """
    torch.manual_seed(0)
    if name.startswith("timm."):
        net = timm.create_model(name.removeprefix("timm."), num_classes=1)
    else:
        options = {"aux_logits": False, "init_weights": False}
        known = options if name in ("googlenet", "inception_v3") else {}
        net = torchvision.models.get_model(name, num_classes=1, **known)
    if isinstance(net, torchvision.models.SqueezeNet):
        net.classifier[2] = nn.Identity()  # as in the detector
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    if norms:
        with torch.no_grad():
            for _ in range(2):
                net.train()(torch.randn(4, 3, min(size, 128), min(size, 128)))
    return net.eval().to(memory_format=torch.channels_last)
