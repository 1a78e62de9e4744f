"""Weights and the network that shall take them: do they fit, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from tff.safe_text import visible

# Classifiers that only help in the training of GoogLeNet and Inception v3.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


@dataclass(frozen=True)
class Fit:
    """Names of the tensors that keep a state dict from fitting a network.

    Attributes:
        missing: tensors of the network that the state dict lacks.
        unknown: tensors of the state dict that the network lacks.
        misshapen: those of both, of another shape than the network's.
        head: those of both that differ in the number of outputs alone, which is 1 in the network.
    """

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misshapen: tuple[str, ...]
    head: tuple[str, ...]

    def __bool__(self) -> bool:
        return not (self.missing or self.unknown or self.misshapen or self.head)

    def but_head(self) -> Fit:
        """The same, as if the number of outputs did not matter."""
        return replace(self, head=())

    def __str__(self) -> str:
        told = {
            "missing": self.missing,
            "unknown": self.unknown,
            "of another shape": self.misshapen + self.head,
        }
        return ", ".join(
            f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'} {what} "
            f"({visible(', '.join(names[:3])[:300])}{', ...' if len(names) > 3 else ''})"
            for what, names in told.items()
            if names
        )


def fit(network: nn.Module, weights: Mapping[str, Tensor]) -> Fit:
    """Compare names and shapes.

    Counters of batches may be missing, as in old files; auxiliary classifiers are left out.
    """
    own = network.state_dict()
    differing = [k for k in own if k in weights and weights[k].shape != own[k].shape]
    head = [k for k in differing if _outputs_aside(weights[k]) == own[k].shape]
    missing = [k for k in own if k not in weights and not k.endswith("num_batches_tracked")]
    unknown = [k for k in weights if k not in own and not k.startswith(_AUXILIARY)]
    misshapen = [k for k in differing if k not in head]
    return Fit(tuple(missing), tuple(unknown), tuple(misshapen), tuple(head))


def _outputs_aside(tensor: Tensor) -> tuple[int, ...]:
    return (1, *tensor.shape[1:]) if tensor.ndim else ()


def fill(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put the weights that fit into the network; the rest of it stays as it is."""
    # The network's own state dict also tells the version of its layers, which some insist on.
    state = network.state_dict()
    for name, own in state.items():
        if name in weights and weights[name].shape == own.shape:
            state[name] = weights[name]
    network.load_state_dict(state)


def head_of(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Name of the layer that gives the logit, and the layer: the last one with a single output.

    Raises:
        ValueError: there is none.
    """
    for name, module in reversed([*network.named_modules()]):
        if isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) == 1:
            return name, module
    raise ValueError(f"{type(network).__name__}: no layer with one output, so no detector")


def replace_head(network: nn.Module) -> None:
    """Put a head with one output where a classifier ends, after its other weights were drawn.

    So a seed draws the same network as it does for a classifier.
    """
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    name, last = layers[-1]
    head = (
        nn.Linear(last.in_features, 1)
        if isinstance(last, nn.Linear)
        else nn.Conv2d(last.in_channels, 1, kernel_size=1)
    )
    network.set_submodule(name, head)
