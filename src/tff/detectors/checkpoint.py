"""Detectors from checkpoints: ours say how to rebuild them, others are told by their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from tff.detectors.detector import Detector
from tff.detectors.safe_load import read
from tff.detectors.weights import HINT, compare, extract_state_dict, load_matching, recognise
from tff.safe_text import make_printable

#: The entry of a checkpoint in which `tff` says how to rebuild its detector and where its data are.
ORIGIN = "tff"

#: Modules that version 0.1 had under another name, and that its checkpoints still name.
MOVED = {
    "tff.detectors.torchvision_model": "tff.detectors.torchvision_models",
    "tff.detectors.timm_model": "tff.detectors.timm_models",
    "tff.detectors.efficientnet": "tff.detectors.timm_models",
    "tff.data.autogan": "tff.data.synthetic.autogan",
    "tff.data.planted": "tff.data.synthetic.planted",
    "tff.augmentations.pipeline": "tff.augmentations.compose",
    "tff.augmentations.gray": "tff.augmentations.color",
}

T = TypeVar("T")


def read_origin(path: Path | str) -> dict[str, Any]:
    """What a `tff` checkpoint says of its run: `detector` and `data` settings, `seed`; else {}."""
    return origin_of(read(path), path)


def origin_of(content: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    """The same from the content of a checkpoint, with the names that modules have today.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        ValueError: the entry is no mapping.
    """
    found = content.get(ORIGIN) or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"checkpoint {path}: its {ORIGIN!r} entry is a {type(found).__name__}")
    renamed: dict[str, Any] = _renamed(dict(found))
    return renamed


def _renamed(value: Any) -> Any:
    """The settings, each `_target_` in them by the name that it has today."""
    if isinstance(value, Mapping):
        return {
            key: _today(item) if key == "_target_" else _renamed(item)
            for key, item in value.items()
        }
    return [_renamed(item) for item in value] if isinstance(value, list) else value


def _today(target: object) -> object:
    module, _, name = str(target).rpartition(".")
    return f"{MOVED[module]}.{name}" if module in MOVED else target


def load(path: Path | str, detector: Mapping[str, Any] | None = None) -> Detector:
    """Rebuild a detector from a checkpoint alone, in eval mode.

    Reads our own checkpoints; CNNDetection's (`{"model": state_dict, ...}`); bare state dicts, also
    as safetensors, of torchvision's ResNets and of EfficientNet-B0 by the names of timm or of
    efficientnet_pytorch, as the authors of the paper publish it.

    Args:
        path: of the file.
        detector: `_target_` and arguments of the detector, where the file does not tell them
            (any other architecture) or not rightly.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is unreadable, or its weights fit no detector that we know.
    """
    path = Path(path).expanduser()
    content = read(path)
    weights = extract_state_dict(content, path)
    told = detector or origin_of(content, path).get("detector")
    settings = told or recognise(weights, path)
    rebuilt = build(settings, path, "tff.detectors", Detector, pretrained=False)
    found = compare(rebuilt.network, weights)
    if found.head and found.ignoring_head():
        outputs = len(weights[found.head[0]])
        what = "an ImageNet classifier" if outputs == 1000 else "a classifier"
        raise ValueError(
            f"checkpoint {path}: is {what} with {outputs:,} outputs, not a detector with one "
            f"logit. To train a detector that starts from it: detector.pretrained={path}"
        )
    if not found:
        raise ValueError(
            f"checkpoint {path}: does not fit {dict(settings)}: {found}"
            + ("" if told else f". {HINT}")
        )
    load_matching(rebuilt.network, weights)
    rebuilt.eval()
    return rebuilt


def build(settings: Any, path: Path | str, package: str, kind: type[T], **overrides: Any) -> T:
    """Make the object that a checkpoint describes, and call nothing else.

    Args:
        settings: `_target_`, the full name of a class or function, and its arguments.
        path: of the checkpoint, for messages.
        package: where the class or function must be defined.
        kind: what it must make: a class derived from it, or a function that says (`->`) that it
            returns it.
        overrides: arguments that the checkpoint has no say in.

    Raises:
        ValueError: the settings name anything else (a stranger's file must run no code), or their
            arguments do not fit.
    """
    if not isinstance(settings, Mapping):
        settings = {"_target_": settings}
    target = settings.get("_target_")
    module, _, name = str(target).rpartition(".")
    make = None
    if f"{module}.".startswith(f"{package}."):
        with suppress(ImportError, RecursionError):  # of a name with thousands of dots
            make = getattr(import_module(module), name, None)
    # What a module merely imported, such as `torch`, is not defined there.
    if not callable(make) or getattr(make, "__module__", None) != module:
        named = repr(target)[:200]
        raise ValueError(f"checkpoint {path}: names {named}, not a part of {package}; refused")
    # Before it is called: a function that does something else may do harm.
    if not _makes(make, kind):
        raise ValueError(
            f"checkpoint {path}: {target} cannot be made: it is no class derived from "
            f"{kind.__name__} and no function declared with `-> {kind.__name__}`; refused"
        )
    arguments = {k: v for k, v in settings.items() if k != "_target_"} | overrides
    try:
        made: T = make(**arguments)
    except Exception as error:  # arguments made for it let it stumble over anything
        told = make_printable(str(error), lines=True)
        raise ValueError(f"checkpoint {path}: {target} cannot be made: {told}") from error
    return made


def _makes(make: Any, kind: type) -> bool:
    makes = make
    if not isinstance(make, type):
        with suppress(NameError, TypeError):
            makes = get_type_hints(make).get("return")
    return isinstance(makes, type) and issubclass(makes, kind)
