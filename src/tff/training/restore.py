"""What a resumed training takes from its checkpoint: numbers and tensors, and no path.

Lightning restores what it finds: folders and files that callbacks then write, remove or upload,
and attributes of schedules and counters. Of a file from somebody else, nothing may name a place,
so each entry is compared with what the training itself holds at that point.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from pytorch_lightning import Trainer
from torch import Tensor

#: Entry of a checkpoint for metrics and the fingerprint of the training images.
PROGRESS = "tff_progress"
#: Entries without which no training can be resumed.
REQUIRED = ("state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers")
_KINDS = {
    "state_dict": Mapping, "loops": Mapping, "callbacks": Mapping, "optimizer_states": list,
    "lr_schedulers": list, "MixedPrecision": Mapping, PROGRESS: Mapping, "epoch": int,
    "global_step": int, "pytorch-lightning_version": str,
}  # fmt: skip
#: Values of `ModelCheckpoint` that are a path, or have paths as keys.
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
_SCORES = ("best_model_score", "current_score", "kth_value")


def select_restorable(content: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    """Entries of a checkpoint that a training is resumed from; all paths are beside the file.

    Args:
        content: of the file.
        path: of the file.

    Raises:
        ValueError: an entry is missing, malformed, or holds text where numbers belong.
    """
    if missing := [name for name in REQUIRED if name not in content]:
        raise ValueError(
            f"checkpoint {path}: holds no {', '.join(missing)}, so no training can be resumed from "
            f"it. To start a new one from its weights: detector.pretrained={path}"
        )
    found: dict[str, Any] = {
        "epoch": 0, "global_step": 0, "pytorch-lightning_version": "2.0.0",
    }  # fmt: skip
    found |= {name: content[name] for name in _KINDS if name in content}
    for name, value in found.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise _malformed(path, name, value)
    try:
        if Version(found["pytorch-lightning_version"]) < Version("2.0.0"):
            raise InvalidVersion
    except InvalidVersion:
        raise _malformed(path, "pytorch-lightning_version", content) from None
    found["state_dict"] = _select_weights(found["state_dict"], path)
    folder = Path(path).expanduser().resolve().parent
    if odd := [s for s in found["callbacks"].values() if not isinstance(s, Mapping | None)]:
        raise _malformed(path, "callbacks", odd[0])
    found["callbacks"] = {
        key: _move_paths(state, folder, path, str(key))
        if state
        and (str(key).startswith("ModelCheckpoint") or {"best_k_models", *_PATHS} & state.keys())
        else _require_numbers(state, found["state_dict"], path, str(key))
        for key, state in found["callbacks"].items()
    }
    if PROGRESS in found:
        found[PROGRESS] = _select_progress(found[PROGRESS], path)
    return found


def _select_weights(weights: Mapping[Any, Any], path: Path | str) -> OrderedDict[str, Tensor]:
    """A state dict with the versions of its layers, and nothing else."""
    made = OrderedDict[str, Tensor]()
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _malformed(path, f"state_dict.{name}", value)
        made[name] = value
    layers = getattr(weights, "_metadata", None)
    if isinstance(layers, Mapping):
        made._metadata = OrderedDict(  # type: ignore[attr-defined]
            (name, {"version": facts["version"]})
            for name, facts in layers.items()
            if isinstance(facts, Mapping) and isinstance(facts.get("version"), int)
        )
    return made


def _select_progress(progress: Mapping[str, Any], path: Path | str) -> dict[str, Any]:
    """Metrics as numbers, and the fingerprint of the images."""
    metrics, images = progress.get("metrics", {}), progress.get("images")
    try:
        numbers = {str(name): float(value) for name, value in metrics.items()}
    except Exception:  # of whatever stands there
        raise _malformed(path, f"{PROGRESS}.metrics", metrics) from None
    if images is not None:
        found = images if isinstance(images, Mapping) else {}
        if type(found.get("count")) is not int or not isinstance(found.get("digest"), str):
            raise _malformed(path, f"{PROGRESS}.images", images)
        images = {name: found[name] for name in ("count", "digest")}
    return {"metrics": numbers, "images": images}


def _move_paths(
    state: Mapping[str, Any], folder: Path, path: Path | str, where: str
) -> dict[str, Any]:
    """State of `ModelCheckpoint` with all its files in the folder of the checkpoint."""

    def move(name: object) -> str:
        last = re.split(r"[/\\]", name)[-1] if isinstance(name, str) else ""
        if name and not last.endswith(".ckpt"):
            raise _malformed(path, where, name)
        return str(folder / last) if last else ""

    def score(value: object) -> object:
        single = isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
        if value is not None and not single and not isinstance(value, int | float):
            raise _malformed(path, where, value)
        return value

    best = state.get("best_k_models", {})
    if not isinstance(best, Mapping):
        raise _malformed(path, where, best)
    made: dict[str, Any] = {name: move(state.get(name, "")) for name in _PATHS}
    made |= {name: score(state[name]) for name in _SCORES if name in state}
    made["best_k_models"] = {move(name): score(value) for name, value in best.items()}
    made["dirpath"] = str(folder)
    made.setdefault("best_model_score", None)
    worst = made["kth_best_model_path"]
    if worst not in made["best_k_models"] and (worst or made["best_k_models"]):
        raise _malformed(path, where, worst)
    return made


def _require_numbers(
    value: Any, names: Collection[str], path: Path | str, where: str, depth: int = 0
) -> Any:
    """The value, if it consists of numbers, tensors, and text that names tensors of the network."""
    if isinstance(value, Mapping) and depth < 20:
        for key, item in value.items():
            if not isinstance(key, int) and not re.fullmatch(r"[\w./-]+", str(key)):
                raise _malformed(path, where, key)
            _require_numbers(item, names, path, where, depth + 1)
    elif isinstance(value, list | tuple) and depth < 20:
        for item in value:
            _require_numbers(item, names, path, where, depth + 1)
    elif isinstance(value, str):
        if value not in names:
            raise _malformed(path, where, value)
    elif value is not None and not isinstance(value, int | float | Tensor):
        raise _malformed(path, where, value)
    return value


def _malformed(path: Path | str, where: str, value: object) -> ValueError:
    kind = repr(value)[:80] if isinstance(value, str | int | float) else type(value).__name__
    return ValueError(
        f"checkpoint {path}: its entry {where[:80]} holds {kind}, which no training writes there; "
        f"to start a new training from its weights: detector.pretrained={path}"
    )


def fit_callbacks(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Give the states of callbacks in a checkpoint the form that the callbacks have now.

    Args:
        checkpoint: from `select_restorable`; changed in place.
        trainer: with the callbacks.

    Raises:
        ValueError: a state has another form.
    """
    path, states = trainer.ckpt_path, checkpoint["callbacks"]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        key, own = callback.state_key, callback.state_dict()
        if key in states and own and "best_k_models" not in own:
            states[key] = _fit(own, states[key], f"checkpoint {path}: its entry {key}", True)


def fit_progress(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Give counters, schedules and optimizers in a checkpoint the form that they have now.

    Args:
        checkpoint: from `select_restorable`; changed in place.
        trainer: with its optimizers.

    Raises:
        ValueError: an entry has another form.
    """
    say = f"checkpoint {trainer.ckpt_path}: its entry"
    own_loop = trainer.fit_loop.state_dict()
    loop = checkpoint["loops"].get("fit_loop")
    checkpoint["loops"] = {"fit_loop": _fit(own_loop, loop, f"{say} loops", True)}
    schedules = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    checkpoint["lr_schedulers"] = [
        _fit(own, found, f"{say} lr_schedulers")
        for own, found in zip(schedules, checkpoint["lr_schedulers"], strict=False)
    ]
    optimizers = checkpoint["optimizer_states"]
    if len(optimizers) != len(trainer.optimizers):
        raise ValueError(
            f"{say} optimizer_states has {len(optimizers)} optimizers, and the training "
            f"{len(trainer.optimizers)}; resume with the same options"
        )
    checkpoint["optimizer_states"] = [
        _fit_optimizer(optimizer, found, f"{say} optimizer_states")
        for optimizer, found in zip(trainer.optimizers, optimizers, strict=True)
    ]
    name, own = type(trainer.precision_plugin).__qualname__, trainer.precision_plugin.state_dict()
    if name in checkpoint:
        checkpoint[name] = _fit(own, checkpoint[name], f"{say} {name}")


def _fit(own: Any, found: Any, where: str, fill: bool = False) -> Any:
    """A found value in the form of our own: the same keys and kinds; text stays ours.

    Args:
        own: of the training at its start.
        found: in the checkpoint.
        where: for the message.
        fill: what is empty or None in our own may be anything.
    """
    if isinstance(found, int) and abs(found) >= 1 << 63:
        found = repr(found)
    number = isinstance(found, int | float) or (isinstance(found, Tensor) and found.numel() == 1)
    match own:
        case Mapping() if isinstance(found, Mapping):
            if not own and fill:
                return found
            make: Any = type(own)
            return make(
                {
                    key: _fit(value, found[key], f"{where}.{key}", fill) if key in found else value
                    for key, value in own.items()
                }
            )
        case list() | tuple() if isinstance(found, list | tuple):
            if len(own) == len(found):
                pairs = zip(own, found, strict=True)
                return type(found)([_fit(mine, theirs, where, fill) for mine, theirs in pairs])
            if not own and all(isinstance(item, int | float) for item in found):
                return found
        case None if found is None or number or fill:
            return found
        case str() if found == own:
            return own
        case bool() if isinstance(found, bool):
            return found
        case int() if not isinstance(own, bool) and type(found) in (int, float):
            return found
        case float() | Tensor() if number:
            return found
        case Tensor() if isinstance(found, Tensor) and found.shape == own.shape:
            return found
    shown = "another form"
    if isinstance(found, str | int | float):
        shown = f"{found!r:.60}, not {own!r:.60}" if isinstance(own, str | int | float) else shown
    raise ValueError(f"{where} has {shown}; resume with the same options, or train anew")


#: Tensors of optimizers that some of torch's kernels read without checking their size.
_FULL = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum"}


def _fit_optimizer(optimizer: torch.optim.Optimizer, found: Any, where: str) -> dict[str, Any]:
    """State of an optimizer, each tensor of it for a parameter of that shape."""
    if not isinstance(found, Mapping) or not isinstance(found.get("state"), Mapping):
        raise ValueError(f"{where} has another form; resume with the same options, or train anew")
    groups = _fit(
        optimizer.state_dict()["param_groups"], found.get("param_groups"), f"{where}.param_groups"
    )
    for own, group in zip(optimizer.param_groups, groups, strict=True):
        if changed := [k for k in own if type(own[k]) is bool and own[k] is not group[k]]:
            raise ValueError(f"{where} has another {changed[0]}; resume with the same options")
    # torch matches parameters by their place; the numbers in the file are those of its own list.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in groups for number in group["params"]]
    shapes = {n: p.shape for n, p in zip(numbers, parameters, strict=True)}
    kinds: dict[int, set[Any]] = {}  # Adafactor's differ by the dimensions of the weights
    for number, values in found["state"].items():
        if number not in shapes or not isinstance(values, Mapping):
            raise ValueError(f"{where} has a state of no parameter; resume with the same options")
        alike = kinds.setdefault(len(shapes[number]), set(values)) == set(values)
        for name, value in values.items():
            if not _fits(name, value, shapes[number]) or not alike:
                raise ValueError(f"{where}.{name} does not fit its weights; train anew")
    return {"state": found["state"], "param_groups": groups}


def _fits(name: object, value: object, shape: torch.Size) -> bool:
    """Whether a value may belong to the state of a parameter."""
    if isinstance(value, Tensor):
        if name not in _FULL:
            return name != "step" or value.numel() == 1
        held = value.untyped_storage().nbytes() // value.element_size() - value.storage_offset()
        return value.shape == shape and bool(held >= value.numel())
    if name in _FULL:
        return name == "momentum_buffer" and value is None
    return isinstance(value, int | float) or (name != "step" and not isinstance(value, str))
