import hashlib

import pandas as pd
import pytest
import timm
from torch import nn

from tff.detectors.detector import Detector
from tff.detectors.timm_models import efficientnet_b0, timm_model
from tff.detectors.torchvision_models import torchvision_model
from tff.published.rankings import load_ranking, recognize_architecture, translate_layers
from tff.published.tables import FOLDER

# Of the authors' files, in which a line is KEY,OMEGA with every digit.
SHA256 = {
    "resnet50": "9fe5ac745e6656e7181b1d3f1fe88d761469757f4e553bfa00dd73ca396d7ce1",
    "efficientnet_b0": "2ca3e2eba175c46145daf2aa5b8e16d69e275ded949c54e3e18a843c278d4594",
}


def convolutions(network):
    """Output channels of the convolutions that are feature maps, in module order."""
    gates = ("conv_reduce", "conv_expand")
    return {
        name: module.out_channels
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and not name.endswith(gates)
    }


@pytest.mark.parametrize("name", SHA256)
def test_rankings_are_the_authors_files_to_the_last_digit(name):
    table = pd.read_parquet(FOLDER / f"omega_{name}.parquet")
    widths = table["layer"].value_counts()
    lines = ["key,mean_relevance"] + [
        f"{layer}.#{channel}(T={widths[layer]}),{omega!r}"
        for layer, channel, omega in zip(
            table["layer"], table["channel"].tolist(), table["omega"].tolist(), strict=True
        )
    ]
    text = "\n".join(lines) + "\n"
    assert hashlib.sha256(text.encode()).hexdigest() == SHA256[name]


def test_rankings_take_little_room():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.parquet")) < 500_000


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torchvision_model("resnet50", False), "resnet50"),
        (lambda: timm_model("resnet50", False), "resnet50"),
        (lambda: efficientnet_b0(False), "efficientnet_b0"),
        (lambda: torchvision_model("resnet18", False), None),
        (lambda: torchvision_model("resnext50_32x4d", False), None),
        (lambda: timm_model("seresnet50", False), None),  # the same feature maps, and gates
        (lambda: timm_model("efficientnet_b0", False), None),  # the same, with other padding
        (lambda: torchvision_model("efficientnet_b0", False), None),
    ],
)
def test_architecture(make, expected):
    assert recognize_architecture(make()) == expected


def test_a_thousand_classes_are_no_detector():
    assert recognize_architecture(Detector(timm.create_model("resnet50"))) is None


@pytest.mark.parametrize(
    ("name", "make"),
    [("resnet50", lambda: torchvision_model("resnet50", False)),
     ("efficientnet_b0", lambda: efficientnet_b0(False))],
)  # fmt: skip
def test_rankings_name_the_layers_of_our_networks(name, make):
    network = make().network
    found = load_ranking(name)["layer"].value_counts().to_dict()
    assert found == convolutions(network)


def test_translation_keeps_the_place_in_the_network():
    theirs = pd.read_parquet(FOLDER / "omega_efficientnet_b0.parquet")["layer"].astype(str)
    pairs = set(
        zip(theirs, translate_layers(theirs, theirs.map(theirs.value_counts())), strict=True)
    )
    order = ["_conv_stem"]
    for i in range(16):  # their sixteen blocks; the first one does not expand
        inside = ("_expand_conv", "_depthwise_conv", "_project_conv")
        order += [f"_blocks.{i}.{name}" for name in inside[i == 0 :]]
    order += ["_conv_head"]
    network = efficientnet_b0(False).network
    assert pairs == set(zip(order, convolutions(network), strict=True))
