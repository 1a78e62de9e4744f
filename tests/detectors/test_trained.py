"""Which parameters are trained, and what the others do meanwhile."""

import pytest
import torch
from tests.helpers import tiny

from tff.detectors.detector import Detector
from tff.detectors.timm_models import timm_model

VIT, CNN = "test_vit", "test_efficientnet"


def trained(detector):
    return [name for name, parameter in detector.named_parameters() if parameter.requires_grad]


def test_all_parameters_are_trained_without_the_option():
    detector = timm_model(VIT, False)
    assert len(trained(detector)) == len([*detector.parameters()])
    assert all(module.training for module in detector.modules())


def test_the_head_alone():
    detector = timm_model(VIT, False, train="head")
    assert trained(detector) == ["network.head.weight", "network.head.bias"]
    modes = {name for name, module in detector.named_modules() if module.training}
    assert modes == {"", "network.head"}
    assert not any(module.training for module in detector.eval().modules())
    assert {name for name, m in detector.train().named_modules() if m.training} == modes


def test_the_last_blocks_and_what_follows_them():
    detector = timm_model(VIT, False, train="last_2")
    parts = {".".join(name.split(".")[1:3]) for name in trained(detector)}
    last = len(detector.network.blocks) - 1
    assert parts == {
        f"blocks.{last - 1}", f"blocks.{last}", "norm.weight", "norm.bias", "head.weight",
        "head.bias",
    }  # fmt: skip
    assert detector.network.blocks[last].attn.training
    assert not detector.network.blocks[last - 2].training


def test_frozen_normalisation_does_not_change():
    detector = timm_model(CNN, False, train="head")
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    loss = detector(torch.rand(4, 3, 64, 64)).sum()
    loss.backward()
    torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=1.0).step()
    changed = {
        name for name, v in detector.state_dict().items() if not torch.equal(v, before[name])
    }
    assert changed == set(trained(detector))


@pytest.mark.parametrize("name", [VIT, CNN, "test_convnext"])
def test_features_and_their_judgement_are_the_logit(name, rng):
    detector = timm_model(name, False, train="head").eval()
    side = detector.network.pretrained_cfg["input_size"][1]
    image = torch.from_numpy(rng.random((3, 3, side, side)).astype("float32"))
    with torch.no_grad():
        features = detector.features(image)
        assert features.shape == (3, detector.network.num_features)
        assert torch.equal(detector.judge(features), detector(image))
    assert not any(module._forward_pre_hooks for module in detector.modules())


def test_impossible_values_are_refused():
    with pytest.raises(ValueError, match=r"detector.train=last_99: VisionTransformer has \d+ blo"):
        timm_model(VIT, False, train="last_99")
    with pytest.raises(ValueError, match=r"detector.train=some: expected all, head, or last_"):
        timm_model(VIT, False, train="some")
    with pytest.raises(ValueError, match=r"the blocks of Net are not known; use head or"):
        Detector(tiny.detector().network, trained="last_1")
