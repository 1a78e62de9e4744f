"""Networks for benchmarks: random weights, but alive as trained ones are."""

import timm
import torch
import torchvision
from torch import nn


def network(name, size=224):
    """A network of torchvision, or of timm if its name starts with `timm.`, with one logit.

    Its BatchNorms differ from each other and have seen images, so that values neither die out nor
    grow on their way, as they would with the weights that a network starts from.
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
