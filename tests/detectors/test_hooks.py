from __future__ import annotations

import pytest
import torch
from tests.helpers import lrp_replica as replicas
from torch import Tensor, nn

from tff.detectors.detector import Detector
from tff.detectors.hooks import drop_channels, record_outputs, record_responses


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
def test_dropped_channels_are_zero_before_batch_norm(channels, detector, image):
    before = detector(image)
    expected = in_place(detector, image, channels)
    with drop_channels(detector, torch.tensor(channels)):
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
    with drop_channels(detector, torch.tensor([detector.channels.flat_index("stem.conv", 1)])):
        detector(image)
    handle.remove()
    torch.testing.assert_close(behind[0][:, 1], constant[1].expand_as(behind[0][:, 1]))
    assert conv.out_channels == 3


@torch.no_grad()
def test_dropping_no_channel_changes_nothing(detector, image):
    with drop_channels(detector, torch.tensor([], dtype=torch.int64)):
        assert hooks(detector) == 0
        inside = detector(image)
    assert torch.equal(inside, detector(image))


@torch.no_grad()
def test_responses_come_in_the_given_order(detector, image):
    channels = torch.tensor([9, 2, 0, 21, 5])
    raw: dict[str, Tensor] = {}
    handles = [
        detector.network.get_submodule(layer).register_forward_hook(
            lambda _m, _i, out, layer=layer: raw.__setitem__(layer, out)
        )
        for layer in detector.channels.layers
    ]
    with record_responses(detector, channels) as responses:
        detector(image[:1])
        detector(image)
        maxima = responses.select(channels)
    for handle in handles:
        handle.remove()
    assert maxima.shape == (3, 5)
    table = detector.channels.table()
    for column, flat in enumerate(channels.tolist()):
        layer, channel = table.loc[flat, "layer"], table.loc[flat, "channel"]
        assert torch.equal(maxima[:, column], raw[layer][:, channel].flatten(1).max(1)[0])
    assert hooks(detector) == 0


@torch.no_grad()
def test_response_of_a_dropped_channel_is_zero(detector, image):
    channels = torch.tensor([1, 0])
    with drop_channels(detector, channels[:1]), record_responses(detector, channels) as responses:
        detector(image)
        maxima = responses.select(channels)
    assert (maxima[:, 0] == 0).all()
    assert (maxima[:, 1] != 0).all()


@torch.no_grad()
@pytest.mark.parametrize("flat", [[1], [2, 0, 9], [21, 5, 12, 3]])
def test_dropped_channels_can_be_replaced(flat, detector, image):
    channels, other = torch.tensor(flat), torch.rand(3, 3, 9, 7, dtype=torch.float64)
    values = torch.randn(len(detector.channels), dtype=torch.float64)
    layers = list(detector.channels.masks(channels))
    with record_outputs(detector, layers) as maps:
        detector(other)
    means = {
        n: detector.channels.broadcast(n, v) for n, v in detector.channels.split(values).items()
    }
    for instead in (means, dict(maps)):

        def replace(layer: str, instead: object = instead) -> object:
            def hook(_m: nn.Module, _i: object, out: Tensor) -> Tensor:
                out = out.clone()
                for c in flat:
                    row = detector.channels.table().iloc[c]
                    if row["layer"] == layer:
                        n = int(row["channel"])
                        out[:, n] = values[c] if instead is means else instead[layer][:, n]
                return out

            return hook

        handles = [
            detector.network.get_submodule(layer).register_forward_hook(replace(layer))
            for layer in layers
        ]
        expected = detector(image)
        for handle in handles:
            handle.remove()
        with drop_channels(detector, channels, instead):
            assert torch.equal(detector(image), expected)
    assert hooks(detector) == 0


def test_gradients_reach_the_outputs_of_layers(detector, image):
    layers = detector.channels.layers
    with record_outputs(detector, layers) as found:
        logits = detector(image.requires_grad_())
    slopes = torch.autograd.grad(logits.sum(), [found[layer] for layer in layers])
    # By a small step: the logit moves by slope times step.
    layer, step = layers[1], 1e-6
    index = (1, 0, 2, 1)

    def nudge(_m: nn.Module, _i: object, out: Tensor) -> Tensor:
        out = out.clone()
        out[index] += step
        return out

    handle = detector.network.get_submodule(layer).register_forward_hook(nudge)
    moved = detector(image).sum() - logits.sum()
    handle.remove()
    assert float(moved) / step == pytest.approx(float(slopes[1][index]), rel=1e-3, abs=1e-8)


@pytest.mark.parametrize("block", [drop_channels, record_responses])
def test_no_hook_stays_after_an_exception(block, detector):
    with pytest.raises(ZeroDivisionError), block(detector, torch.tensor([0, 5, 12])):
        assert hooks(detector) >= 3
        raise ZeroDivisionError
    assert hooks(detector) == 0


@pytest.mark.parametrize("block", [drop_channels, record_responses])
def test_unknown_channel_leaves_no_hook(block, detector):
    with pytest.raises(IndexError), block(detector, torch.tensor([len(detector.channels)])):
        pass
    assert hooks(detector) == 0
