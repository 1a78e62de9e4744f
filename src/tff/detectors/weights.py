"""Weights: comparison with a network, pretrained initialisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tff.detectors.safe_load import read
from tff.detectors.state_dicts import StateDicts, find_state_dicts, select_state_dict
from tff.safe_text import make_printable

# Classifiers that GoogLeNet and Inception v3 use in training only.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


@dataclass(frozen=True)
class Mismatch:
    """Tensor names that differ between a state dict and a network; false if they fit.

    Attributes:
        missing: tensors of the network that the state dict lacks.
        unknown: tensors of the state dict that the network lacks.
        misshapen: tensors of both, with different shapes.
        head: tensors of both that differ in the number of outputs only, which is 1 in the network.
    """

    missing: list[str]
    unknown: list[str]
    misshapen: list[str]
    head: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.misshapen or self.head)

    def ignoring_head(self) -> Mismatch:
        """The mismatch apart from the number of outputs."""
        return replace(self, head=[])

    def __str__(self) -> str:
        misshapen = self.misshapen + self.head
        groups = {"missing": self.missing, "unknown": self.unknown, "of another shape": misshapen}
        return ", ".join(
            f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'} {what} "
            f"({make_printable(', '.join(names[:3])[:300])}{', ...' if len(names) > 3 else ''})"
            for what, names in groups.items()
            if names
        )


def compare(network: nn.Module, weights: Mapping[str, Tensor]) -> Mismatch:
    """Compare tensor names and shapes of a state dict with those of a network.

    Batch counters may be missing, as in old files; auxiliary classifiers are ignored.
    """
    own = network.state_dict()
    differing = [k for k in own if k in weights and weights[k].shape != own[k].shape]
    head = [k for k in differing if weights[k].ndim and own[k].shape == (1, *weights[k].shape[1:])]
    missing = [k for k in own if k not in weights and not k.endswith("num_batches_tracked")]
    unknown = [k for k in weights if k not in own and not k.startswith(_AUXILIARY)]
    misshapen = [k for k in differing if k not in head]
    return Mismatch(missing, unknown, misshapen, head)


def load_matching(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load the weights whose name and shape fit; leave the rest of the network as it is."""
    # The network's own state dict also holds layer versions, which some layers require.
    state = network.state_dict()
    for name, own in state.items():
        if name in weights and weights[name].shape == own.shape:
            state[name] = weights[name]
    network.load_state_dict(state)


def find_head(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Name and module of the layer that computes the logit: the last one with a single output.

    Raises:
        ValueError: no such layer.
    """
    for name, module in reversed([*network.named_modules()]):
        if isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) == 1:
            return name, module
    raise ValueError(f"{type(network).__name__}: not a detector, since no layer has one output")


def replace_head(network: nn.Module) -> None:
    """Replace the last layer of a classifier by a head with one output.

    The weights of the classifier are drawn before, so a seed gives both the same backbone.
    """
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    name, last = layers[-1]
    if isinstance(last, nn.Linear):
        network.set_submodule(name, nn.Linear(last.in_features, 1))
    else:
        network.set_submodule(name, nn.Conv2d(last.in_channels, 1, kernel_size=1))


def find_head_alone(found: StateDicts) -> dict[str, Tensor] | None:
    """Weight and bias of a layer with one output, if a file holds nothing else; None if it does.

    Args:
        found: from `find_state_dicts`.
    """
    weights = next(iter(found.values())) if len(found) == 1 else {}
    ends = {name.rpartition(".")[2]: value for name, value in weights.items()}
    if len(weights) != 2 or ends.keys() != {"weight", "bias"}:
        return None
    return ends if all(v.ndim and len(v) == 1 for v in ends.values()) else None


def load_head(network: nn.Module, path: Path | str) -> None:
    """Load the layer that computes the logit from a file that holds it alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds anything else, or a layer for another number of features.
    """
    layer = find_head(network)[1]
    weights = find_head_alone(find_state_dicts(read(path), path))
    if weights is None:
        raise ValueError(
            f"detector.head={path}: expected a weight and a bias of one output and nothing else; "
            "if the file holds the tower too, name it as detector.pretrained"
        )
    set_head(layer, weights, f"detector.head={path}")


def set_head(layer: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Give the layer that computes the logit its weights.

    Args:
        layer: changed in place.
        weights: from `find_head_alone`.
        source: for the message.

    Raises:
        ValueError: the weights are for another number of features.
    """
    own = layer.state_dict()
    if any(weights[name].numel() != own[name].numel() for name in own):
        raise ValueError(
            f"{source}: holds a layer for {weights['weight'].numel():,} features, and the tower "
            f"has {own['weight'].numel():,}; name the tower that it was trained on (detector.name, "
            "detector.projected)"
        )
    layer.load_state_dict({name: value.reshape(own[name].shape) for name, value in weights.items()})


def initialise(
    network: nn.Module,
    pretrained: bool | str,
    download: Callable[[], Mapping[str, Any]],
    lora_alpha: float | None = None,
) -> None:
    """Initialise the head at random and the rest of the network from pretrained weights.

    The head is loaded too if the weights are those of a detector; it stays random if they have
    another number of classes, or no head.

    Args:
        network: with one output; changed in place.
        pretrained: true: the result of `download`; false: none; or the path of a file.
        download: fetches the published weights.
        lora_alpha: scale of LoRA updates in a file, see `find_state_dicts`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no network connection, or weights of another architecture.
    """
    name, head = find_head(network)
    # As in Wang et al. (CVPR 2020).
    nn.init.normal_(head.weight, 0.0, 0.02)
    if pretrained is False:
        return
    if pretrained is True:
        try:
            content = download()
        except Exception as error:  # whatever the download library raises without a network
            raise ValueError(
                "detector.pretrained=true: the published weights could not be downloaded "
                f"({type(error).__name__}: {str(error)[:200]}). Offline, pass a file of weights "
                "with detector.pretrained=PATH, or start at random with detector.pretrained=false"
            ) from error
    else:
        content = read(pretrained)
    found = find_state_dicts(content, str(pretrained), lora_alpha)
    weights = select_state_dict(found, network, str(pretrained))
    random_head = {f"{name}.{tensor}": value for tensor, value in head.state_dict().items()}
    if not random_head.keys() & weights.keys():
        weights |= random_head
    if mismatch := compare(network, weights).ignoring_head():
        raise ValueError(
            f"detector.pretrained={pretrained}: not weights of this network: {mismatch}"
        )
    load_matching(network, weights)
