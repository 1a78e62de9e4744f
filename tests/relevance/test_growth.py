"""No layer receives much more relevance than the logit had, under any rule.

Relevance is counted by its absolute value: the net sum is about conserved even where huge parts of
both signs cancel. The head hands out more than 1 if its contributions cancel; here its weights are
positive, and what arrives at the last convolution is what the others are held against.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tff.detectors.detector import Detector
from tff.detectors.timm_models import timm_model
from tff.detectors.torchvision_models import torchvision_model
from tff.relevance.conv_rules import CONVOLUTIONS
from tff.relevance.lrp import LRP

#: Most that a layer may receive of what arrives at the last convolution. z+ and gamma hand out
#: shares that hardly cancel. Alpha-beta hands out up to 2 alpha - 1 times what arrives in each
#: layer. The shares of epsilon are those of the gradient. Flat and w^2 give relevance to units that
#: are nearly 0, which a residual sum behind them magnifies.
MOST = {"zplus": 2, "gamma": 2, "alphabeta": 300, "epsilon": 300, "flat": 3000, "wsquare": 3000}


def random_weights(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)


def like_trained(network: nn.Module) -> None:
    """Few large weights, small scales, and units that are mostly off, as training leaves them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= torch.randn_like(module.weight).mul(0.5).exp()
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 0.6)
            nn.init.normal_(module.bias, -0.15, 0.2)


def prepare(detector: Detector) -> Detector:
    """BatchNorm as after training; a head whose contributions to the logit do not cancel."""
    head = [m for m in detector.modules() if isinstance(m, nn.Linear)][-1]
    head.weight.data.abs_()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        detector.train()(torch.rand(4, 3, 32, 32))
    return detector.double().eval()


def received(detector: Detector, rule: str, images: Tensor) -> Tensor:
    """(layers + 1, B) sums of |R| of each layer and of the pixels, from the logit on."""
    engine = LRP(detector, rule=rule)
    last = len(engine.steps) - 1
    activations = engine.propagator.forward(images, last)
    seed = torch.ones_like(activations.values[last])
    found = engine.propagator.backward(activations, last, seed, pixels=True)
    layers = [sums.absolute for sums in found.sums.values()]
    return torch.stack([*layers, found.pixels.abs().sum((1, 2, 3))])


@pytest.mark.parametrize("weights", [random_weights, like_trained])
@pytest.mark.parametrize(
    ("make", "name"), [(torchvision_model, "resnet18"), (timm_model, "tf_efficientnet_b0")]
)
def test_no_layer_receives_much_more_than_the_last(make, name, weights):
    torch.manual_seed(0)
    detector = make(name, pretrained=False)
    weights(detector)
    prepare(detector)
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    for rule in CONVOLUTIONS:
        found = received(detector, rule, images)
        assert (found <= MOST[rule] * found[0].clamp(min=1)).all(), rule


@pytest.mark.parametrize("rule", ["zplus", "epsilon", "gamma"])
def test_biases_of_layer_norms_do_not_make_relevance_grow(rule):
    torch.manual_seed(0)
    detector = timm_model("convnext_atto", pretrained=False)
    norms = [m for m in detector.modules() if isinstance(m, nn.LayerNorm)]
    for norm in norms:
        nn.init.normal_(norm.bias, std=0.5)
    for name, parameter in detector.named_parameters():
        if name.endswith("gamma"):  # the scale of a block, 1e-6 before training
            nn.init.uniform_(parameter, 0.1, 1)
    prepare(detector)
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    found = received(detector, rule, images)
    assert len(norms) > 10
    assert (found <= 30 * found[0].clamp(min=1)).all()
