"""A network that computes its weights is explained as the one that has them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from tff.detectors.detector import Detector
from tff.detectors.feature_maps import find_channels
from tff.detectors.frozen import freeze
from tff.relevance.lrp import LRP

pytestmark = pytest.mark.filterwarnings("ignore")  # torch deprecates the older functions


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def shortened(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "weight", 0.3)
    prune.l1_unstructured(layer, "weight", 0.3)  # a second mask
    return prune.l1_unstructured(layer, "bias", 0.3)


def of_own(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Twice())
    return parametrize.register_parametrization(layer, "bias", Twice())


WRAPS: dict[str, Callable[[Any], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "two in a row": lambda layer: parametrizations.spectral_norm(
        parametrizations.weight_norm(layer)
    ),
    "of one's own": of_own,
    "older weight_norm": weight_norm,
    "older spectral_norm": spectral_norm,
    "pruned": shortened,
}


def network(wrap: Callable[[Any], Any], norm: bool) -> nn.Sequential:
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3), nn.Linear(8, 1)
    between = [nn.BatchNorm2d(8)] if norm else []
    for layer in between:
        nn.init.normal_(layer.running_mean)
        nn.init.uniform_(layer.weight)
    made = nn.Sequential(
        wrap(first), *between, nn.ReLU(), wrap(second), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), wrap(last),
    ).double()  # fmt: skip
    with torch.no_grad():
        made(torch.rand(4, 3, 9, 9, dtype=torch.float64))
    return made


def plain(made: nn.Sequential) -> nn.Sequential:
    """The same network with the weights that it computes in eval mode."""
    made = made.eval()
    with torch.no_grad():
        made(torch.rand(1, 3, 9, 9, dtype=torch.float64))
    layers: list[nn.Module] = []
    for layer in made:
        if isinstance(layer, nn.Conv2d):
            new: Any = nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding
            )
        elif isinstance(layer, nn.Linear):
            new = nn.Linear(layer.in_features, layer.out_features)
        else:
            layers.append(copy.deepcopy(layer))
            continue
        new.weight, new.bias = (
            nn.Parameter(t.detach().clone()) for t in (layer.weight, layer.bias)
        )
        layers.append(new)
    return nn.Sequential(*layers).double().eval()


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(2, 3, 9, 9, dtype=torch.float64)


def assert_equal_relevance(one: nn.Module, other: nn.Module, images: Tensor) -> None:
    found, known = (LRP(network).explain(images, pixels=True) for network in (one, other))
    for mine, theirs in zip(found, known, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("norm", [False, True], ids=["", "BatchNorm"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_computed_weights_are_explained_exactly(wrap, norm, training, images):
    made = network(WRAPS[wrap], norm).train(training)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    kinds = [type(layer) for layer in made]
    explained = LRP(made).explain(images, pixels=True)
    # The given network is not changed.
    assert made.training is training
    assert [type(layer) for layer in made] == kinds
    assert before.keys() == made.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    made(images).sum().backward()
    assert explained.logit.shape == (2,)
    if not training:
        assert_equal_relevance(made, plain(made), images)
        assert find_channels(made).widths == find_channels(plain(made)).widths


def test_a_detector_with_computed_weights_is_frozen():
    made = network(parametrizations.weight_norm, True).eval()
    frozen = freeze(Detector(made).double())
    assert not parametrize.is_parametrized(frozen)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert all(parameter.requires_grad for parameter in made.parameters())


def with_lock(made: nn.Module) -> None:
    made.lock = threading.Lock()


def with_generator(made: nn.Module) -> None:
    made.random = torch.Generator()
    made.rows = (n for n in range(3))


def with_result(made: nn.Module) -> None:
    made.last = made[0].weight * 2
    made.all = [made[0].weight * 2, {"deep": made[0].weight * 3}]


def with_hook(made: nn.Module) -> None:
    lock, seen = threading.Lock(), []

    class Keep:
        def __init__(self) -> None:
            self.lock = lock

        def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
            seen.append(module)

    made[0].register_forward_hook(Keep())
    made[1].register_forward_hook(lambda *_: seen.append(lock))


@pytest.mark.parametrize(
    "change", [with_lock, with_generator, with_result, with_hook], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("norm", [False, True])
def test_attributes_that_cannot_be_copied_do_not_matter(change, norm, images):
    made = network(lambda layer: layer, norm).eval()
    other = copy.deepcopy(made)
    change(made)
    assert_equal_relevance(made, other, images)


def test_shared_layers_stay_shared(images):
    torch.manual_seed(0)
    layer = parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1)]
    made = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), *head).double().eval()
    frozen = freeze(made)
    assert frozen[0] is frozen[2]
    torch.testing.assert_close(frozen(images), made(images), rtol=1e-12, atol=0)


class Scaled(nn.Conv2d):
    """Computes its weight in a hook of its own, as networks with equalised rates do."""

    def __init__(self) -> None:
        super().__init__(3, 4, 3)
        weight = self.weight
        del self._parameters["weight"]
        self.weight_orig = weight
        self.weight = weight.data
        self.register_forward_pre_hook(lambda m, _: setattr(m, "weight", m.weight_orig * 0.1))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: nn.LazyConv2d(4, 3), r"^0 \(LazyConv2d\) has no weights yet.*batch of images"),
        (Scaled, r"^0 \(Scaled\) computes its weight in a way of its own.*register_param"),
        (lambda: torch.ao.nn.quantized.Conv2d(3, 4, 3), r"^0 \(Conv2d\) is quantised"),
    ],
)
def test_layers_that_cannot_be_explained_are_named(layer, message):
    made = nn.Sequential(layer(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(NotImplementedError, match=message):
        LRP(made)
