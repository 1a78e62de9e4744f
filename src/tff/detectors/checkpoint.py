"""Detectors from checkpoints: ours store how to rebuild them, others are recognised by tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from torch import nn

from tff.detectors.detector import Detector
from tff.detectors.safe_load import read
from tff.detectors.state_dicts import HINT, find_state_dicts, recognise, select_state_dict
from tff.detectors.weights import compare, find_head, find_head_alone, load_matching, set_head
from tff.safe_text import make_printable

#: Checkpoint entry in which `tff` stores how to rebuild its detector and where its data are.
ORIGIN = "tff"

#: Old -> current names of modules that checkpoints of version 0.1 refer to.
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


def origin_of(content: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    """Origin of a `tff` checkpoint: its `detector` and `data` settings and `seed`; {} of others.

    Args:
        content: of the file; modules get their current names.
        path: of the file, for messages.

    Raises:
        ValueError: the entry is not a mapping, or holds more than text and numbers.
    """
    found = content.get(ORIGIN) or {}
    if not isinstance(found, Mapping):
        raise ValueError(
            f"checkpoint {path}: expected a mapping as its {ORIGIN!r} entry, found "
            f"{type(found).__name__}"
        )
    try:
        return {key: _with_current_names(value) for key, value in found.items()}
    except TypeError as error:
        raise ValueError(
            f"checkpoint {path}: its {ORIGIN!r} entry holds {error}; expected text and numbers"
        ) from None


def _with_current_names(value: Any) -> Any:
    """Settings with each `_target_` under its current name."""
    if isinstance(value, list):
        return [_with_current_names(item) for item in value]
    if isinstance(value, str | int | float | tuple | None):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(type(value).__name__)
    renamed = {key: _with_current_names(item) for key, item in value.items()}
    module, _, name = str(renamed.get("_target_")).rpartition(".")
    return renamed | {"_target_": f"{MOVED[module]}.{name}"} if module in MOVED else renamed


def load(
    path: Path | str,
    detector: Mapping[str, Any] | None = None,
    content: Mapping[str, Any] | None = None,
) -> Detector:
    """Rebuild a detector from nothing but a checkpoint, in eval mode.

    Reads our own checkpoints, and state dicts (bare or in the wrappers of a trainer, also as
    safetensors) of torchvision's ResNets and of EfficientNet-B0, the latter with the names of timm
    or of efficientnet_pytorch, as the authors of the paper publish it.

    Args:
        path: of the file.
        detector: `_target_` and arguments of the detector, for any other architecture or to
            override those in the file.
        content: of the file; None: read it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is unreadable, or its weights fit no known detector.
    """
    path = Path(path).expanduser()
    content = read(path) if content is None else content
    alpha = (detector or {}).get("lora_alpha")
    found = find_state_dicts(content, path, alpha)
    if (head := find_head_alone(found)) is not None:
        if not detector or detector.get("pretrained", False) is False:
            raise ValueError(
                f"checkpoint {path}: holds a layer for {head['weight'].numel():,} features, and "
                "not the network that computes them; name its weights, such as "
                "detector=clip_linear detector.pretrained=FILE"
            )
        named = {key: value for key, value in detector.items() if key != "head"}
        rebuilt = build(named, path, "tff.detectors", Detector)
        set_head(find_head(rebuilt.network)[1], head, f"checkpoint {path}")
        return rebuilt.eval()
    known = detector or origin_of(content, path).get("detector")
    settings = known or recognise(found, path)
    # The file has all weights; others that the settings name may be missing, or anybody's.
    others = {"pretrained": False} | ({"head": None} if "head" in settings else {})
    make = partial(build, settings, path, "tff.detectors", Detector, **others)
    network = _outline(make)
    weights = select_state_dict(found, network, path)
    mismatch = compare(network, weights)
    if mismatch.head and not mismatch.ignoring_head():
        outputs = len(weights[mismatch.head[0]])
        what = "an ImageNet classifier" if outputs == 1000 else "a classifier"
        advice = f"To train a detector that starts from it: detector.pretrained={path}"
        if outputs == 2:
            advice = (
                "If its second output means generated, the difference of both is one logit: save "
                f"{mismatch.head[0]} as weight[1:] - weight[:1], and the bias likewise. {advice}"
            )
        raise ValueError(
            f"checkpoint {path}: is {what} with {outputs:,} outputs, not a detector with one "
            f"logit. {advice}"
        )
    if mismatch:
        raise ValueError(
            f"checkpoint {path}: does not fit {dict(settings)}: {mismatch}"
            + ("" if known else f". {HINT}")
        )
    rebuilt = make()
    load_matching(rebuilt.network, weights)
    rebuilt.eval()
    return rebuilt


def _outline(make: Callable[[], Detector]) -> nn.Module:
    """A network without memory for its weights: a file may name one larger than the machine."""
    try:
        with torch.device("meta"):
            return make().network
    except ValueError as error:
        if "meta tensor" not in str(error):
            raise
        return make().network  # torchvision's RegNets read their weights; the largest takes 2.6 GB


def build(settings: Any, path: Path | str, package: str, kind: type[T], **overrides: Any) -> T:
    """Build the object that a checkpoint describes, without calling anything else.

    Args:
        settings: `_target_`, the full name of a class or function, and its arguments.
        path: of the checkpoint, for messages.
        package: where the class or function must be defined.
        kind: required result: the target is a subclass, or a function annotated to return it.
        overrides: arguments that replace those of the checkpoint.

    Raises:
        ValueError: the settings name anything else (an untrusted file must not run code), or the
            arguments do not fit.
    """
    if not isinstance(settings, Mapping):
        settings = {"_target_": settings}
    target = settings.get("_target_")
    module, _, name = str(target).rpartition(".")
    make = None
    if f"{module}.".startswith(f"{package}."):
        with suppress(ImportError, RecursionError):  # recursion: a name with thousands of dots
            make = getattr(import_module(module), name, None)
    # A name that the module merely imports, such as `torch`, is not defined there.
    if not callable(make) or getattr(make, "__module__", None) != module:
        named = repr(target)[:200]
        raise ValueError(f"checkpoint {path}: names {named}, not a part of {package}; refused")
    # Checked before the call: another function may do harm.
    if not _makes(make, kind):
        raise ValueError(
            f"checkpoint {path}: {target} cannot be built: neither a subclass of "
            f"{kind.__name__} nor a function annotated with `-> {kind.__name__}`; refused"
        )
    arguments = {k: v for k, v in settings.items() if k != "_target_"} | overrides
    try:
        made: T = make(**arguments)
    except Exception as error:  # crafted arguments may raise anything
        reason = make_printable(str(error), lines=True)
        raise ValueError(f"checkpoint {path}: {target} cannot be built: {reason}") from error
    return made


def _makes(make: Any, kind: type) -> bool:
    if not isinstance(make, type):
        with suppress(NameError, TypeError):
            make = get_type_hints(make).get("return")
    return isinstance(make, type) and issubclass(make, kind)
