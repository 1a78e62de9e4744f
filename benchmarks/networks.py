"""Networks for benchmarks with random weights and realistic activations."""

import timm
import torch
import torchvision
from torch import nn


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
