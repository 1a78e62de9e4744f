"""Weights in files of other trainers: under any key, in any wrapper, by the names of a network."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tff.detectors.low_rank import add_updates
from tff.detectors.timm_names import to_timm_names
from tff.safe_text import make_printable

log = logging.getLogger(__name__)

StateDicts = Mapping[str, Mapping[str, Tensor]]
#: Keys of the weights themselves, in a file that has others too (such as averages).
_FIRST = ("state_dict", "model")
#: Keys of what trainers note of a training.
_NOTES = ("tff", "callbacks", "loops", "lr_scheduler", "optimizer")
# Modules that wrap a part of a network, anywhere in a name.
_WITHIN = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

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


def find_state_dicts(
    content: Mapping[str, Any], path: Path | str, lora_alpha: float | None = None
) -> dict[str, dict[str, Tensor]]:
    """All mappings of names to tensors in a checkpoint, by their keys (`ema.state_dict`).

    Weights that are stored in parts (of weight normalisation, spectral normalisation, pruning,
    LoRA, or Effort's singular vectors) are computed.

    Args:
        content: a state dict (whose key is ""), or a checkpoint that holds one somewhere.
        path: of the file, for messages.
        lora_alpha: numerator of the scale of LoRA updates, which weights do not tell.

    Raises:
        ValueError: it contains no tensors by name.
    """
    found: dict[str, dict[str, Tensor]] = {}
    pending: list[tuple[str, Any]] = [("", content)]
    while pending:
        key, node = pending.pop(0)
        named = {k: v for k, v in node.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if named:
            # DenseNets were published when module names could contain a dot.
            old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
            names = {name: old.sub(r"\1\2", _WITHIN.sub("", name)) for name in named}
            found[key] = add_updates(
                _multiply({names[name]: value for name, value in named.items()}), path, lora_alpha
            )
        # The state of an optimizer is under the numbers of its parameters.
        for name, value in node.items() if "param_groups" not in node else ():
            items = (
                {str(i): item for i, item in enumerate(value)} if isinstance(value, list) else value
            )
            if isinstance(items, Mapping):
                pending.append((f"{key}.{name}".lstrip("."), items))
    if not found:
        keys = ", ".join(str(key) for key in [*content][:5]) or "nothing"
        raise ValueError(f"checkpoint {path}: holds no tensors, only: {make_printable(keys[:300])}")
    return found


_STORED = re.compile(
    r"(?P<layer>.*?)(?P<new>parametrizations\.)?(?P<name>weight|bias)"
    r"(?P<part>_g|_v|_orig|_mask|_u|\.original[01]?|\.0\._[uv])"
)


def _multiply(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with those computed that are stored in parts."""
    parts: dict[str, dict[str, str]] = {}
    for name in weights:
        if match := _STORED.fullmatch(name):
            part = match["part"].removeprefix(".0.").strip("._")
            parts.setdefault(match["layer"] + match["name"], {})[part] = name
    for name, stored in parts.items():
        tensors = {part: weights[key] for part, key in stored.items()}
        match sorted(tensors):
            case ["g", "v"] | ["original0", "original1"]:
                size, direction = (tensors[part] for part in sorted(tensors))
                dims = [i for i in range(direction.ndim) if size.ndim == 0 or size.shape[i] == 1]
                norm = torch.linalg.vector_norm(direction, dim=dims or None, keepdim=bool(dims))
                made = direction * (size / norm)
            case ["mask", "orig"]:
                made = tensors["orig"] * tensors["mask"]
            case ["orig", "u", "v"] | ["original", "u", "v"]:
                weight = tensors.get("orig", tensors.get("original"))
                assert weight is not None
                u, v = tensors["u"], tensors["v"]
                first = weight if len(weight) == len(u) else weight.transpose(0, 1)
                made = weight / torch.dot(u, first.reshape(len(u), -1) @ v)
            case _:
                continue
        if name not in weights:
            weights = {k: v for k, v in weights.items() if k not in stored.values()} | {name: made}
    return weights


def select_state_dict(found: StateDicts, network: nn.Module, path: Path | str) -> dict[str, Tensor]:
    """The tensors of a network by its own names; what stands beside them is logged once.

    The prefix under which most names of the network are found is taken off, whatever it is called.
    Tensors outside of it, and counters, are not of the network. A last layer of another name is
    recognised by its shape if there is only one.

    Args:
        found: from `find_state_dicts`.
        network: whose names are looked for.
        path: of the file, for messages.

    Raises:
        ValueError: the weights of several such networks, or unusual tensors (sparse, quantised).
    """
    own = network.state_dict()
    converted = {key: to_timm_names(weights, network) for key, weights in found.items()}
    found = {key: weights for key, (weights, _) in converted.items()}
    counted = {name for name in own if not name.endswith("num_batches_tracked")}
    choices: list[tuple[int, str, str]] = []
    for key, weights in found.items():
        weights = _translate(weights)
        prefixes = Counter(
            prefix for name in weights for prefix, rest in _split(name) if rest in counted
        )
        choices += [(count, key, prefix) for prefix, count in prefixes.items()]
    most = max((count for count, _, _ in choices), default=0)
    best = [(key, prefix) for count, key, prefix in choices if count == most]
    if most < len(counted) / 2:  # another network, some of whose names are the same
        best = [(max(found, key=lambda key: len(found[key])), "")]
    key, prefix = _choose(best, found, path)
    weights = _translate(found[key])
    inner = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
    beside = {n: v for n, v in weights.items() if not n.startswith(prefix)}
    for name in [n for n, v in inner.items() if n not in own and _is_counter(n, v, own)]:
        beside[prefix + name] = inner.pop(name)
    _rename_head(inner, beside, own)
    _require_dense(inner, own, path)
    others = [k for k in found if k != key and not k.startswith(_NOTES)]
    left_out = sorted(converted[key][1])
    if unused := [
        *beside,
        *left_out,
        *(f"{k or 'others'} ({len(found[k])} tensors)" for k in others),
    ]:
        named, more = ", ".join(unused[:6])[:300], ", ..." if len(unused) > 6 else ""
        log.warning(
            "checkpoint %s: not of the network, and not used: %s",
            path,
            make_printable(named) + more,
        )
    return inner


def _translate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under timm's names, where they have those of efficientnet_pytorch."""
    for name in weights:
        if name.endswith("_conv_stem.weight"):
            prefix = name.removesuffix("_conv_stem.weight")
            inner = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
            rest = {n: v for n, v in weights.items() if not n.startswith(prefix)}
            return rest | {prefix + n: v for n, v in translate_efficientnet(inner).items()}
    return dict(weights)


def _split(name: str) -> list[tuple[str, str]]:
    """All ways to divide a name at a dot into a prefix and the rest."""
    parts = name.split(".")[:40]
    return [
        ("".join(f"{part}." for part in parts[:i]), ".".join(parts[i:])) for i in range(len(parts))
    ]


def _choose(best: list[tuple[str, str]], found: StateDicts, path: Path | str) -> tuple[str, str]:
    """One of several weights that would fit."""
    for first in _FIRST:
        if several := [(k, p) for k, p in best if k.partition(".")[0] == first]:
            best = several
            break
    if len(best) == 1:
        return best[0]
    tensors = [
        {n.removeprefix(p): v for n, v in found[k].items() if n.startswith(p)} for k, p in best
    ]
    if all(_equal(tensors[0], other) for other in tensors[1:]):
        return best[0]
    names = ", ".join(" ".join(part.strip(".") for part in choice if part) for choice in best)
    raise ValueError(
        f"checkpoint {path}: holds the weights of several networks: {make_printable(names[:300])}; "
        "save those that you mean in a file of their own: torch.save(weights, 'weights.pth')"
    )


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        v.shape == other[n].shape and v.dtype == other[n].dtype and torch.equal(v, other[n])
        for n, v in one.items()
    )


def _is_counter(name: str, value: Tensor, own: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is beside the network: a single number, or whole numbers elsewhere."""
    places = {known.partition(".")[0] for known in own}
    return value.numel() == 1 or (
        not value.is_floating_point() and name.partition(".")[0] not in places
    )


def _rename_head(
    inner: dict[str, Tensor], beside: dict[str, Tensor], own: Mapping[str, Tensor]
) -> None:
    """Give the last layer the name that it has in the network, if only one can be meant."""
    missing = [n for n in own if n not in inner and not n.endswith("num_batches_tracked")]
    if not missing or not {n.rpartition(".")[2] for n in missing} <= {"weight", "bias"}:
        return
    if len({n.rpartition(".")[0] for n in missing}) > 1 or len(own[missing[0]]) != 1:
        return
    moved = []
    for name in missing:
        leaf = name.rpartition(".")[2]
        fitting = [
            (place, n)
            for place in (inner, beside)
            for n, v in place.items()
            if n not in own and n.rpartition(".")[2] == leaf and v.shape == own[name].shape
        ]
        if len(fitting) != 1:
            return
        moved.append((name, *fitting[0]))
    if len({n.rpartition(".")[0] for _, _, n in moved}) == 1:
        for name, place, n in moved:
            inner[name] = place.pop(n)


def _require_dense(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path | str
) -> None:
    for name, tensor in weights.items():
        real = name not in own or own[name].is_floating_point()
        kind = (
            "only a shape" if tensor.is_meta
            else "sparse" if tensor.layout != torch.strided
            else "quantised" if tensor.is_quantized
            else "complex" if tensor.is_complex()
            else "of whole numbers, perhaps quantised" if real and not tensor.is_floating_point()
            else ""
        )  # fmt: skip
        if kind:
            raise ValueError(
                f"checkpoint {path}: its tensor {make_printable(name[:200])!r} is {kind}; expected "
                "dense tensors of real numbers"
            )


def translate_efficientnet(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of efficientnet_pytorch under timm's names.

    timm numbers blocks within stages of equal width.
    """
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


def recognise(found: StateDicts, path: Path | str) -> dict[str, Any]:
    """Settings of the detector that weights belong to, by tensor names and shapes.

    Args:
        found: from `find_state_dicts`.
        path: of the file, for messages.

    Raises:
        ValueError: neither EfficientNet-B0 nor one of torchvision's ResNets.
    """
    largest = max(found.values(), key=len)
    near = f"first tensors: {make_printable(', '.join([*largest][:3])[:300])}"
    for weights in found.values():
        if any(re.fullmatch(r"(?:.*\.)?_?conv_stem\.weight", name) for name in weights):
            return {"_target_": "tff.detectors.timm_models.efficientnet_b0"}
        for name in weights:
            if not re.fullmatch(r"(?:.*\.)?layer1\.0\.conv2\.weight", name):
                continue
            prefix = name.removesuffix("layer1.0.conv2.weight")
            inner = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
            if weights[name].ndim != 4:
                continue
            blocks = {m[0] for k in inner if (m := re.match(r"layer[1-4]\.\d+\.", k))}
            counts = tuple(sum(b.startswith(f"layer{n}.") for b in blocks) for n in (1, 2, 3, 4))
            kind = (counts, "layer1.0.conv3.weight" in inner, tuple(weights[name].shape[:2]))
            if kind in _RESNETS:
                target = "tff.detectors.torchvision_models.torchvision_model"
                return {"_target_": target, "name": _RESNETS[kind]}
            width = len(weights[name])
            near = f"like a ResNet of {'-'.join(map(str, counts))} blocks, width {width}"
    raise ValueError(
        f"checkpoint {path}: unknown architecture ({near}); expected the tensor names of "
        f"torchvision's ResNets, or of EfficientNet-B0 in timm or efficientnet_pytorch. {HINT}"
    )
