"""Weights: formats of state dicts, comparison with a network, pretrained initialisation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tff.detectors.safe_load import read
from tff.safe_text import make_printable

# Prefixes that trainers add to the names of a network's tensors.
_WRAPPERS = ("module.", "_orig_mod.", "detector.", "model.", "network.")

# Module names of efficientnet_pytorch -> timm.
_EFFICIENTNET = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head",
                 "_bn1": "bn2", "_fc": "classifier"}  # fmt: skip
_INVERTED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
             "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand",
             "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
# Blocks without expansion have one convolution less, and timm numbers theirs differently.
_SEPARABLE = _INVERTED | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

# torchvision's ResNets by the number of blocks per stage, whether blocks have a third convolution,
# and the outputs and inputs (per group) of the second convolution of the first block.
_RESNETS = {
    ((2, 2, 2, 2), False, (64, 64)): "resnet18",
    ((3, 4, 6, 3), False, (64, 64)): "resnet34",
    ((3, 4, 6, 3), True, (64, 64)): "resnet50",
    ((3, 4, 23, 3), True, (64, 64)): "resnet101",
    ((3, 8, 36, 3), True, (64, 64)): "resnet152",
    ((3, 4, 6, 3), True, (128, 128)): "wide_resnet50_2",
    ((3, 4, 23, 3), True, (128, 128)): "wide_resnet101_2",
    ((3, 4, 6, 3), True, (128, 4)): "resnext50_32x4d",
    ((3, 4, 23, 3), True, (256, 8)): "resnext101_32x8d",
    ((3, 4, 23, 3), True, (256, 4)): "resnext101_64x4d",
}

#: How to load weights whose names do not reveal the architecture.
HINT = (
    'For another architecture, name it: load(path, {"_target_": '
    '"tff.detectors.torchvision_models.torchvision_model", "name": NAME}), or timm_model likewise'
)


def extract_state_dict(content: Mapping[str, Any], path: Path | str) -> dict[str, Tensor]:
    """Tensors of the network without wrappers, under their torchvision or timm names.

    Args:
        content: a state dict, or a checkpoint that holds one as `state_dict` or `model`.
        path: of the file, for messages.

    Raises:
        ValueError: it contains no tensors, or unusual ones (sparse, quantised, complex).
    """
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    weights = {k: v for k, v in content.items() if isinstance(v, Tensor) and isinstance(k, str)}
    if not weights:
        found = ", ".join(str(key) for key in [*content][:5]) or "nothing"
        raise ValueError(
            f"checkpoint {path}: holds no tensors, only: {make_printable(found[:300])}"
        )
    _require_dense(weights, path)
    for wrapper in _WRAPPERS:
        if all(k.startswith(wrapper) for k in weights):
            weights = {k.removeprefix(wrapper): v for k, v in weights.items()}
    if "_conv_stem.weight" in weights:
        return _from_efficientnet_pytorch(weights)
    # DenseNets were published when module names could contain a dot.
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {old.sub(r"\1\2", k): v for k, v in weights.items()}


def _require_dense(weights: Mapping[str, Tensor], path: Path | str) -> None:
    for name, tensor in weights.items():
        kind = (
            "only a shape" if tensor.is_meta
            else "sparse" if tensor.layout != torch.strided
            else "quantised" if tensor.is_quantized
            else "complex" if tensor.is_complex()
            else ""
        )  # fmt: skip
        if kind:
            raise ValueError(
                f"checkpoint {path}: its tensor {name[:200]!r} is {kind}; expected dense tensors "
                "of real numbers"
            )


def _from_efficientnet_pytorch(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under timm's names, which number blocks within stages of equal width."""
    position: dict[int, str] = {}
    stage, index, width = -1, 0, torch.Size()
    blocks = {int(k.split(".")[1]) for k in weights if re.match(r"_blocks\.\d+\.", k)}
    for block in sorted(blocks):
        projection = weights.get(f"_blocks.{block}._project_conv.weight")
        if projection is not None and projection.shape[:1] != width:
            stage, index, width = stage + 1, 0, projection.shape[:1]
        position[block] = f"blocks.{stage}.{index}"
        index += 1
    named = {}
    for key, value in weights.items():
        owner, dot, leaf = key.rpartition(".")
        inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", owner)
        if inside:
            expands = f"_blocks.{inside[1]}._expand_conv.weight" in weights
            name = (_INVERTED if expands else _SEPARABLE).get(inside[2], inside[2])
            named[f"{position[int(inside[1])]}.{name}.{leaf}"] = value
        else:
            named[f"{_EFFICIENTNET.get(owner, owner)}{dot}{leaf}"] = value
    return named


def recognise(weights: Mapping[str, Tensor], path: Path | str) -> dict[str, Any]:
    """Settings of the detector that these weights belong to, by tensor names and shapes.

    Raises:
        ValueError: neither EfficientNet-B0 nor one of torchvision's ResNets.
    """
    if "conv_stem.weight" in weights:
        return {"_target_": "tff.detectors.timm_models.efficientnet_b0"}
    found = f"first tensors: {make_printable(', '.join([*weights][:3])[:300])}"
    inner = weights.get("layer1.0.conv2.weight")
    if inner is not None and inner.ndim == 4:
        blocks = {m[0] for k in weights if (m := re.match(r"layer[1-4]\.\d+\.", k))}
        counts = tuple(sum(b.startswith(f"layer{n}.") for b in blocks) for n in (1, 2, 3, 4))
        kind = (counts, "layer1.0.conv3.weight" in weights, tuple(inner.shape[:2]))
        if kind in _RESNETS:
            target = "tff.detectors.torchvision_models.torchvision_model"
            return {"_target_": target, "name": _RESNETS[kind]}
        found = f"like a ResNet of {'-'.join(map(str, counts))} blocks, width {len(inner)}"
    raise ValueError(
        f"checkpoint {path}: unknown architecture ({found}); expected the tensor names of "
        f"torchvision's ResNets, or of EfficientNet-B0 in timm or efficientnet_pytorch. {HINT}"
    )


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


def initialise(
    network: nn.Module, pretrained: bool | str, download: Callable[[], Mapping[str, Any]]
) -> None:
    """Initialise the head at random and the rest of the network from pretrained weights.

    The head is loaded too if the weights are those of a detector; it stays random if they have
    another number of classes, or no head.

    Args:
        network: with one output; changed in place.
        pretrained: true: the result of `download`; false: none; or the path of a file.
        download: fetches the ImageNet weights.

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
                "detector.pretrained=true: the ImageNet weights could not be downloaded "
                f"({type(error).__name__}: {str(error)[:200]}). Offline, pass a file of weights "
                "with detector.pretrained=PATH, or start at random with detector.pretrained=false"
            ) from error
    else:
        content = read(pretrained)
    weights = extract_state_dict(content, str(pretrained))
    random_head = {f"{name}.{tensor}": value for tensor, value in head.state_dict().items()}
    if not random_head.keys() & weights.keys():
        weights |= random_head
    if mismatch := compare(network, weights).ignoring_head():
        raise ValueError(
            f"detector.pretrained={pretrained}: not weights of this network: {mismatch}"
        )
    load_matching(network, weights)
