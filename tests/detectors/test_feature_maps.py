"""Twins against other networks' own structure, and against what dropping a channel does."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import efficientnet_b0, mobilenet_v2, resnet18, shufflenet_v2_x0_5

from tff.detectors.detector import Detector
from tff.detectors.feature_maps import depthwise_twins, find_channels
from tff.detectors.hooks import drop_channels, record_responses
from tff.relevance.lrp import channel_relevance


class Pair(nn.Module):
    """A convolution, something between, and a depthwise one of the same width."""

    def __init__(self, between, width=4, factor=1):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3)
        self.between = between
        self.second = nn.Conv2d(width, width * factor, 3, groups=width)
        self.fc = nn.Linear(width * factor, 1)

    def forward(self, x):
        x = self.between(self.first(x))
        return self.fc(self.second(x).mean((2, 3)))


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def literal(network, pairs):
    """Twins from the names of depthwise convolutions and the ones before them."""
    channels = find_channels(network)
    expected = [-1] * len(channels)
    for later, earlier in pairs:
        assert channels.widths[later] == channels.widths[earlier]
        for c in range(channels.widths[later]):
            expected[channels.flat_index(later, c)] = channels.flat_index(earlier, c)
    return torch.tensor(expected)


def test_depthwise_twins_of_efficientnet_b0():
    network = efficientnet_b0(num_classes=1)
    pairs = [("features.1.0.block.0.0", "features.0.0")]
    for stage, blocks in zip(range(2, 8), (2, 2, 3, 3, 4, 1), strict=True):
        for i in range(blocks):
            block = f"features.{stage}.{i}.block"
            pairs.append((f"{block}.1.0", f"{block}.0.0"))
    found = depthwise_twins(network)
    assert torch.equal(found, literal(network, pairs))
    assert int((found >= 0).sum()) == 8960


def test_depthwise_twins_of_mobilenet_v2():
    network = mobilenet_v2(num_classes=1)
    pairs = [("features.1.conv.0.0", "features.0.0")]
    pairs += [(f"features.{i}.conv.1.0", f"features.{i}.conv.0.0") for i in range(2, 18)]
    assert torch.equal(depthwise_twins(network), literal(network, pairs))


def test_shufflenet_has_twins_in_one_branch_only():
    # The other branch begins with a depthwise convolution of a pooled or shuffled input.
    network = shufflenet_v2_x0_5(num_classes=1)
    pairs = []
    for name, module in network.named_modules():
        if name.endswith("branch2.3") and isinstance(module, nn.Conv2d):
            assert module.groups == module.in_channels
            pairs.append((name, name[:-1] + "0"))
    assert len(pairs) == 16
    assert torch.equal(depthwise_twins(network), literal(network, pairs))


def test_resnet_has_no_twins():
    found = depthwise_twins(resnet18(num_classes=1))
    assert len(found) == 4800
    assert (found == -1).all()


@pytest.mark.parametrize(
    "between",
    [
        nn.Identity(),
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Hardswish(), nn.BatchNorm2d(4), nn.Dropout(0.2)),
        nn.PReLU(4),
        Call(torch.relu),
        Call(F.relu),
        Call(F.silu),
        Call(lambda x: F.leaky_relu(x, 0.2)),
        Call(lambda x: x.relu_()),
        Call(lambda x: x.contiguous()),
    ],
)
def test_twins_remain_behind_elementwise_operations(between):
    network = Pair(between)
    assert depthwise_twins(network).tolist() == [-1] * 4 + [0, 1, 2, 3]


@pytest.mark.parametrize(
    "between",
    [
        nn.ZeroPad2d(1),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 1, 1),
        Call(lambda x: F.pad(x, (1, 1, 1, 1))),
        Call(lambda x: F.max_pool2d(x, 2)),
        Call(lambda x: F.interpolate(x, scale_factor=2)),
        Call(lambda x: x + F.relu(x)),
    ],
)
def test_no_twins_behind_operations_that_mix_positions_or_branches(between):
    assert (depthwise_twins(Pair(between)) == -1).all()


def test_other_grouped_convolutions_have_no_twins():
    assert (depthwise_twins(Pair(nn.ReLU(), factor=2)) == -1).all()
    grouped = Pair(nn.ReLU())
    grouped.second = nn.Conv2d(4, 4, 3, groups=2)
    assert (depthwise_twins(grouped) == -1).all()


def test_convolution_of_a_single_channel_is_not_depthwise():
    assert (depthwise_twins(Pair(nn.ReLU(), width=1)) == -1).all()


def test_depthwise_convolution_may_follow_another():
    class Chain(Pair):
        def __init__(self):
            super().__init__(nn.ReLU())
            self.third = nn.Conv2d(4, 4, 3, padding=1, groups=4)

        def forward(self, x):
            x = self.third(torch.relu(self.second(self.between(self.first(x)))))
            return self.fc(x.mean((2, 3)))

    assert depthwise_twins(Chain()).tolist() == [-1] * 4 + [0, 1, 2, 3] + [4, 5, 6, 7]


@torch.no_grad()
def test_twin_depends_on_its_earlier_channel_only():
    torch.manual_seed(3)
    network = Pair(nn.Sequential(nn.BatchNorm2d(4), nn.SiLU())).eval()
    found = depthwise_twins(network)
    seen = {}
    network.second.register_forward_hook(lambda _m, _i, out: seen.update(out=out))
    image = torch.rand(2, 3, 9, 9)
    network(image)
    before = seen["out"]
    for channel in range(4):
        handle = network.first.register_forward_hook(
            lambda _m, _i, out, channel=channel: out.index_fill(1, torch.tensor(channel), 5.0)
        )
        network(image)
        handle.remove()
        moved = (seen["out"] != before).flatten(2).any(2).all(0)
        assert found[4:][moved].tolist() == [channel]


class Gated(nn.Module):
    """An MLP whose neurons are multiplied by an activation; kind: how both are computed."""

    def __init__(self, kind, width=3):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 4, 2, 2)
        self.act = {"quick": lambda z: z * torch.sigmoid(1.7 * z)}.get(kind, F.gelu)
        self.gate, self.value = nn.Linear(4, width), nn.Linear(4, width)
        self.packed, self.out = nn.Linear(4, 2 * width), nn.Linear(width, 2)
        self.head = nn.Linear(2, 1)

    def hidden(self, x):
        if self.kind in ("apart", "quick"):
            return self.act(self.gate(x)) * self.value(x)
        packed, width = self.packed(x), self.out.in_features
        if self.kind == "gate first":
            gate, value = packed.chunk(2, dim=-1)
        elif self.kind == "gate last":
            value, gate = packed.split(width, dim=2)
        else:
            gate, value = packed[..., ::2], packed[..., 1::2]
        return value * self.act(gate)

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)
        return self.head(self.out(self.hidden(x)).mean(1))


@pytest.mark.parametrize(
    ("kind", "layer", "first"),
    [
        ("apart", "value", 0),
        ("quick", "value", 0),
        ("gate first", "packed", 3),
        ("gate last", "packed", 0),
        ("interleaved", None, 0),  # the neurons are no row of outputs
    ],
)
def test_neurons_of_a_gated_mlp_are_those_that_are_no_gate(kind, layer, first):
    torch.manual_seed(0)
    detector = Detector(Gated(kind).eval(), units=["neurons"])
    channels = detector.channels
    assert channels.layers == ([layer] if layer else [])
    if layer is None:
        return
    assert (channels.widths[layer], channels.first.get(layer, 0)) == (3, first)
    images = torch.rand(2, 3, 6, 4)
    found = [channel_relevance(detector, images, sign)[layer] for sign in (1, -1)]
    assert (sum(found) > 0).any()
    expected = copy.deepcopy(detector)
    expected.network.out.weight.data[:, 1] = 0  # the neuron that is multiplied to exactly 0
    with torch.no_grad(), drop_channels(detector, torch.tensor([1])):
        dropped = detector(images)
    with torch.no_grad():
        torch.testing.assert_close(dropped, expected(images))
        assert not torch.allclose(dropped, detector(images))
    with record_responses(detector, torch.arange(3)) as responses, torch.no_grad():
        detector(images)
    tokens = detector.network.conv(detector.normalise(images)).flatten(2).transpose(1, 2)
    values = getattr(detector.network, layer)(tokens)[..., first : first + 3]
    torch.testing.assert_close(responses.select(torch.arange(3)), values.amax(1))
