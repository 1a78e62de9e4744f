"""Rankings: the published ones, files in two formats, and the architectures that have one."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import timm
from torch import nn

from tff.detectors.detector import Detector
from tff.detectors.timm_models import efficientnet_b0, timm_model
from tff.detectors.torchvision_models import torchvision_model
from tff.published.rankings import (
    load_ranking,
    published_omega,
    read_omega,
    recognize_architecture,
    to_published_format,
    translate_layers,
)
from tff.published.tables import FOLDER
from tff.types import Channels

CHANNELS = Channels({"conv1": 3, "layer1.0.conv1": 4})
OMEGA = np.array([0.1, 0.30000000000000004, 0.0, 1e-9, 0.25, 0.0, 0.7])


def ours():
    return CHANNELS.table().assign(omega=OMEGA)


def written(tmp_path, table):
    path = tmp_path / "other.csv"
    table.to_csv(path, index=False)
    return path


def test_both_formats_in_any_order(tmp_path):
    for table in (ours(), to_published_format(OMEGA, CHANNELS)):
        mixed = table.sample(frac=1, random_state=3)
        np.testing.assert_array_equal(read_omega(written(tmp_path, mixed), CHANNELS), OMEGA)


def test_further_columns_are_ignored(tmp_path):
    table = ours().assign(rank=1, weights="=x, y", images=3)
    np.testing.assert_array_equal(read_omega(written(tmp_path, table), CHANNELS), OMEGA)


def test_the_authors_file_with_their_layer_names(tmp_path):
    channels = efficientnet_b0(False).channels
    theirs = pd.read_parquet(FOLDER / "omega_efficientnet_b0.parquet")
    widths = theirs["layer"].map(theirs["layer"].value_counts())
    keys = theirs["layer"] + ".#" + theirs["channel"].astype(str) + "(T=" + widths.astype(str) + ")"
    table = pd.DataFrame({"key": keys, "mean_relevance": theirs["omega"]})
    read = read_omega(written(tmp_path, table), channels)
    np.testing.assert_array_equal(read, published_omega("efficientnet_b0", channels))
    with pytest.raises(ValueError, match=r"has 21,007 of the network's 21,008 channels"):
        read_omega(written(tmp_path, table.iloc[1:]), channels)
    # The paper's strongest channel: number 2 of the first depthwise convolution.
    assert int(read.argmax()) == channels.flat_index("blocks.0.0.conv_dw", 2)
    assert read.max() == theirs["omega"].max() == theirs["omega"].iloc[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="omega"), "columns layer, channel; expected the columns layer"),
        (lambda t: t.iloc[:0], "has 0 of the network's 7"),
        (lambda t: t.iloc[1:], "has 6 of the network's 7 channels"),
        (lambda t: pd.concat([t, t.tail(1)]), r"line 9: 'layer1.0.conv1 #3' is listed twice"),
        (lambda t: t.assign(omega=t["omega"].where(t.index != 2)), "line 4: omega '': expected"),
        (lambda t: t.assign(omega=t["omega"].where(t.index != 2, -1.0)), "line 4: omega '-1.0'"),
        (lambda t: t.assign(omega=t["omega"].where(t.index != 1, np.inf)), "line 3: omega 'inf'"),
        (lambda t: t.assign(omega="x"), "line 2: omega 'x': expected a finite number"),
        (lambda t: t.assign(channel=t["channel"] + 0.5), "line 2: channel '0.5': expected a whole"),
        (lambda t: t.assign(channel=t["channel"] + 3), "line 2: 'conv1 #3': the layer has fewer"),
        (lambda t: t.replace("conv1", "conv9"), "line 2: unknown layer 'conv9'; the network has"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, change, message):
    path = written(tmp_path, change(ours()))
    with pytest.raises(ValueError, match=message) as error:
        read_omega(path, CHANNELS)
    assert str(path) in str(error.value)


def test_malformed_keys_are_refused(tmp_path):
    table = to_published_format(OMEGA, CHANNELS)
    table.loc[4, "key"] = "conv1#2"
    with pytest.raises(ValueError, match=r"line 6: key 'conv1#2': expected LAYER.#CHANNEL"):
        read_omega(written(tmp_path, table), CHANNELS)


def test_a_key_of_another_width_is_refused(tmp_path):
    table = to_published_format(OMEGA, CHANNELS)
    table["key"] = table["key"].str.replace("T=4", "T=5")
    with pytest.raises(ValueError, match=r"line 2: .*: the layer has another width"):
        read_omega(written(tmp_path, table), CHANNELS)


def test_files_that_are_no_tables_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv: no such file; expected"):
        read_omega(tmp_path / "nowhere.csv", CHANNELS)
    for content in (b"", b"\xff\xfe\x00\x01", b"a,b\n1,2\n1,2,3\n"):
        (tmp_path / "odd.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"odd.csv: (not a CSV file|has the columns)"):
            read_omega(tmp_path / "odd.csv", CHANNELS)
    (tmp_path / "short.csv").write_text("layer,channel,omega\nconv1,0,0.1\nconv1\n")
    with pytest.raises(ValueError, match="line 3: channel"):
        read_omega(tmp_path / "short.csv", CHANNELS)


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


def test_rankings_are_small_files():
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
def test_architectures_are_recognized(make, expected):
    assert recognize_architecture(make()) == expected


def test_a_network_with_a_thousand_classes_is_not_recognized():
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


def test_translated_layers_are_in_network_order():
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
