from __future__ import annotations

import pytest
import torch
from tests import replicas
from torch import Tensor, nn

from tff.detectors.base import Detector
from tff.detectors.interventions import dropped, recorded


@pytest.fixture
def detector() -> Detector:
    network = replicas.network([("basic", 3, 1), ("inverted", 4, 2)], seed=1)
    return Detector(network).double().eval()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 3, 9, 7, dtype=torch.float64, generator=torch.manual_seed(0))


def hooks(detector: Detector) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in detector.modules())


def in_place(detector: Detector, image: Tensor, channels: list[int]) -> Tensor:
    """As the released code: one hook a channel that writes zeros into the raw output."""
    handles = []
    for flat in channels:
        row = detector.channels.table().iloc[flat]

        def zero(_m: nn.Module, _i: object, out: Tensor, c: int = int(row["channel"])) -> None:
            out[:, c] *= 0

        layer = detector.network.get_submodule(str(row["layer"]))
        handles.append(layer.register_forward_hook(zero))
    logits = detector(image)
    for handle in handles:
        handle.remove()
    return logits


@torch.no_grad()
@pytest.mark.parametrize("channels", [[0], [1, 2, 4], [5, 3], [12, 20, 0, 23]])
def test_dropped(channels, detector, image):
    before = detector(image)
    expected = in_place(detector, image, channels)
    with dropped(detector, torch.tensor(channels)):
        assert torch.equal(detector(image), expected)
        assert torch.equal(detector(image[:1])[0], detector(image)[0])
    assert not torch.equal(expected, before)
    assert torch.equal(detector(image), before)
    assert hooks(detector) == 0


@torch.no_grad()
def test_a_dropped_channel_is_its_fused_bias(detector, image):
    conv, norm = detector.network.stem.conv, detector.network.stem.norm
    constant = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
    behind = []
    handle = norm.register_forward_hook(lambda _m, _i, out: behind.append(out.clone()))
    with dropped(detector, torch.tensor([detector.channels.flat("stem.conv", 1)])):
        detector(image)
    handle.remove()
    torch.testing.assert_close(behind[0][:, 1], constant[1].expand_as(behind[0][:, 1]))
    assert conv.out_channels == 3


@torch.no_grad()
def test_nothing_dropped(detector, image):
    with dropped(detector, torch.tensor([], dtype=torch.int64)):
        assert hooks(detector) == 0
        inside = detector(image)
    assert torch.equal(inside, detector(image))


@torch.no_grad()
def test_recorded_in_the_order_asked_for(detector, image):
    channels = torch.tensor([9, 2, 0, 21, 5])
    outputs: dict[str, Tensor] = {}
    handles = [
        detector.network.get_submodule(layer).register_forward_hook(
            lambda _m, _i, out, layer=layer: outputs.__setitem__(layer, out)
        )
        for layer in detector.channels.layers
    ]
    with recorded(detector, channels) as responses:
        detector(image[:1])
        beside = responses.beside(detector(image))
    for handle in handles:
        handle.remove()
    assert beside.shape == (3, 6)
    assert torch.equal(beside[:, 0], detector(image))
    table = detector.channels.table()
    for column, flat in enumerate(channels.tolist(), start=1):
        layer, channel = table.loc[flat, "layer"], table.loc[flat, "channel"]
        assert torch.equal(beside[:, column], outputs[layer][:, channel].flatten(1).max(1)[0])
    assert hooks(detector) == 0


@torch.no_grad()
def test_recorded_sees_dropped_channels_as_zero(detector, image):
    channels = torch.tensor([1, 0])
    with dropped(detector, channels[:1]), recorded(detector, channels) as responses:
        beside = responses.beside(detector(image))
    assert (beside[:, 1] == 0).all()
    assert (beside[:, 2] != 0).all()


@pytest.mark.parametrize("block", [dropped, recorded])
def test_no_hook_stays_after_an_exception(block, detector):
    with pytest.raises(ZeroDivisionError), block(detector, torch.tensor([0, 5, 12])):
        assert hooks(detector) == 3
        raise ZeroDivisionError
    assert hooks(detector) == 0


@pytest.mark.parametrize("block", [dropped, recorded])
def test_unknown_channel(block, detector):
    with pytest.raises(IndexError), block(detector, torch.tensor([len(detector.channels)])):
        pass
    assert hooks(detector) == 0
