"""Checkpoints, read without running any code that they may hold."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tff.detectors.base import Detector

#: The entry of a checkpoint in which `tff` says how to rebuild its detector and where its data are.
ORIGIN = "tff"


def read(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint file: tensors and plain containers only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, no checkpoint, or holds a pickle with code in it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path}: refused, because it holds more than tensors and plain containers "
            f"({str(error).splitlines()[0][:160]}). Ask its author for a bare state_dict"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"checkpoint {path} ({path.stat().st_size} bytes): not a readable checkpoint, perhaps "
            f"cut short: {str(error)[:160]}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"checkpoint {path}: expected a dictionary, found {type(content).__name__}"
        )
    return content


def origin(path: Path | str) -> dict[str, Any]:
    """What a `tff` checkpoint says of its run: `detector` and `data` settings, `seed`; else {}."""
    return dict(read(path).get(ORIGIN, {}))


def load(path: Path | str) -> Detector:
    """Rebuild a detector from a checkpoint alone, in eval mode.

    Reads our own checkpoints, CNNDetection's (`{"model": state_dict, ...}`) and bare state dicts of
    the three architectures (torchvision's and timm's names).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is unreadable, or its weights fit no detector that we know.
    """
    path = Path(path).expanduser()
    content = read(path)
    weights = state_dict_in(content, path)
    settings = dict(content.get(ORIGIN, {}).get("detector") or _guess(weights, path))
    detector: Detector = build(settings | {"pretrained": False}, path)
    own = detector.network.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = [k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape]
    if missing or extra or wrong:
        raise ValueError(
            f"checkpoint {path}: does not fit {settings}: {len(missing)} tensors missing "
            f"({', '.join(missing[:3])}), {len(extra)} unknown ({', '.join(extra[:3])}), "
            f"{len(wrong)} of another shape ({', '.join(wrong[:3])})"
        )
    detector.network.load_state_dict(weights)
    detector.eval()
    return detector


def build(settings: Mapping[str, Any], path: Path | str) -> Any:
    """Make the object that a checkpoint describes, if it is one of ours.

    Raises:
        ValueError: the settings name something outside `tff` (a stranger's file must run no code).
    """
    from hydra.utils import instantiate

    for target in _targets(settings):
        if not target.startswith("tff."):
            raise ValueError(f"checkpoint {path}: names {target!r}, not a part of tff; refused")
    return instantiate(dict(settings))


def _targets(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [t for value in node.values() for t in _targets(value)]
    return [t for value in node for t in _targets(value)] if isinstance(node, list) else []


def state_dict_in(content: Mapping[str, Any], path: Path | str) -> dict[str, Tensor]:
    """The network's tensors, whatever wraps them, by their names in the network itself."""
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    weights = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not weights:
        raise ValueError(f"checkpoint {path}: holds no tensors, only {sorted(content)[:5]}")
    for wrapper in ("module.", "detector.", "network."):
        if all(k.startswith(wrapper) for k in weights):
            weights = {k.removeprefix(wrapper): v for k, v in weights.items()}
    return weights


def _guess(weights: Mapping[str, Tensor], path: Path | str) -> dict[str, Any]:
    """Settings of the detector whose weights these are, told by their names."""
    if "conv_stem.weight" in weights:
        return {"_target_": "tff.detectors.efficientnet.efficientnet_b0"}
    if "layer1.0.conv1.weight" in weights:
        name = "resnet50" if "layer1.0.conv3.weight" in weights else "resnet18"
        return {"_target_": "tff.detectors.resnet.resnet", "name": name}
    raise ValueError(
        f"checkpoint {path}: of unknown architecture (first tensors: {', '.join([*weights][:3])}); "
        "expected the names of torchvision's ResNets or of timm's EfficientNet-B0"
    )
