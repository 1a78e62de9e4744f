"""Checkpoints, read without running any code that they may hold."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tff.detectors.base import Detector

_UNREADABLE = (
    RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile, SafetensorError
)  # fmt: skip

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
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path}: refused, because it holds more than tensors and plain containers "
            f"({str(error).splitlines()[0][:160]}). Ask its author for a bare state_dict"
        ) from error
    except _UNREADABLE as error:
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
    return _origin(read(path), path)


def _origin(content: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    found = content.get(ORIGIN, {})
    if not isinstance(found, Mapping):
        raise ValueError(f"checkpoint {path}: its {ORIGIN!r} entry is a {type(found).__name__}")
    return dict(found)


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
    settings = _origin(content, path).get("detector") or _guess(weights, path)
    detector = build(settings, path, "tff.detectors", pretrained=False)
    if not isinstance(detector, Detector):
        raise ValueError(f"checkpoint {path}: {settings} is no detector")
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


def build(settings: Any, path: Path | str, package: str, **overrides: Any) -> Any:
    """Make the object that a checkpoint describes.

    Args:
        settings: `_target_`, the full name of a class or function, and its arguments.
        path: of the checkpoint, for messages.
        package: where the class or function must be defined.
        overrides: arguments that the checkpoint has no say in.

    Raises:
        ValueError: the settings name anything else (a stranger's file must run no code), or their
            arguments do not fit.
    """
    target = settings.get("_target_") if isinstance(settings, Mapping) else settings
    module, _, name = str(target).rpartition(".")
    make = None
    if f"{module}.".startswith(f"{package}."):
        with suppress(ModuleNotFoundError):
            make = getattr(import_module(module), name, None)
    # What a module merely imported, such as `torch`, is not defined there.
    if not callable(make) or getattr(make, "__module__", None) != module:
        raise ValueError(f"checkpoint {path}: names {target!r}, not a part of {package}; refused")
    arguments = {k: v for k, v in settings.items() if k != "_target_"} | overrides
    try:
        return make(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"checkpoint {path}: {target} cannot be made: {error}") from error


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
