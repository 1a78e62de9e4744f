from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.helpers.tiny import splits, tree
from torch import nn

from tff.analyses.engine.subject import Subject
from tff.detectors.detector import Detector
from tff.detectors.input_sizes import InputSizes
from tff.detectors.timm_models import timm_model
from tff.detectors.torchvision_models import torchvision_model
from tff.training.module import UniversalDetector
from tff.types import Batch


def small_net() -> Detector:
    return torchvision_model("squeezenet1_1", pretrained=False)


@pytest.mark.parametrize(
    ("name", "side", "proposed"),
    [("squeezenet1_1", 8, 32), ("googlenet", 8, 32), ("inception_v3", 64, 96)],
)
def test_images_too_small_for_the_strides(name, side, proposed):
    sizes = InputSizes(torchvision_model(name, pretrained=False))
    assert "size" in str(sizes.refusal(side, side))
    assert sizes.propose_side(side, side) == proposed
    with torch.no_grad(), pytest.raises(RuntimeError) as error:
        torchvision_model(name, pretrained=False).eval()(torch.zeros(1, 3, side, side))
    assert sizes.refusal(side, side) in str(error.value)


def test_network_for_one_size():
    sizes = InputSizes(timm_model("vit_tiny_patch16_224", pretrained=False))
    for side in (8, 225, 256):
        assert sizes.refusal(side, side) == f"Input height ({side}) doesn't match model (224)"
        assert sizes.propose_side(side, side) == 224
    assert sizes.refusal(224, 224) is None


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (31, 500), (32, 32)])
def test_network_for_all_sizes(size):
    assert InputSizes(torchvision_model("resnet18", pretrained=False)).refusal(*size) is None


class NeedsNumbers(nn.Module):
    """Looks into its input, as no tensor without content can."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 1)
        self.calls: list[str] = []

    def forward(self, x):
        self.calls.append(str(x.device))
        assert float(x.sum()) == 0
        return self.fc(x.mean((2, 3)))


def test_sizes_are_tried_with_numbers_where_shapes_do_not_do():
    network = NeedsNumbers()
    assert InputSizes(Detector(network)).refusal(9, 9) is None
    assert network.calls == []  # a copy was tried
    assert network.training


def test_message_names_image_size_number_and_what_to_do():
    sizes = InputSizes(small_net())
    found = np.array([[64, 64]] * 3 + [[8, 31]] * 2)
    message = (
        r"^d: 8x31 pixels, as 2 of 5 images; SqueezeNet cannot take this size \(Given input size"
        r".*\)\. Resize and crop the images \(data\.resize=32 data\.crop=center32\), or use another"
    )
    with pytest.raises(ValueError, match=message):
        sizes.require(found, list("abcde"))
    sizes.require(found[:3], list("abc"))
    sizes.require(found[:0], [])


def test_the_extremes_of_many_sizes_are_tried():
    sizes = InputSizes(small_net())
    found = np.array([[40 + i % 60, 300 - i] for i in range(150)])
    for odd in ((8, 200), (90, 8)):
        found[77] = odd
        with pytest.raises(ValueError, match=f"^77: {odd[0]}x{odd[1]} pixels, as 1 of 150"):
            sizes.require(found, [str(i) for i in range(150)])


def test_an_analysis_names_a_size_before_the_first_batch(tmp_path):
    images = splits(tree(tmp_path, size=8))
    detector = small_net()
    subject = Subject.of(detector, images, device="cpu")
    with pytest.raises(ValueError, match=r"0\.png: 8x8 pixels, as 24 of 24 images; SqueezeNet"):
        subject.evaluate()


def test_a_training_names_a_size_at_the_first_batch():
    module = UniversalDetector(small_net(), torch.optim.SGD)
    batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.arange(2))
    with pytest.raises(ValueError, match=r"^data\.size: SqueezeNet .* 8x8 .*data\.size=32"):
        module._step(batch, "train")


def test_other_errors_of_a_network_stay_as_they_are():
    class Broken(NeedsNumbers):
        def forward(self, x):
            if x.sum() > 0:
                raise RuntimeError("of another kind")
            return super().forward(x)

    module = UniversalDetector(Detector(Broken()), torch.optim.SGD)
    batch = Batch(torch.ones(2, 3, 8, 8), torch.tensor([0, 1]), torch.arange(2))
    with pytest.raises(RuntimeError, match="of another kind"):
        module._step(batch, "train")
