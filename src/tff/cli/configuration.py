"""The composed configuration of a run: each option checked, and its paths made full ones.

Imported before everything else by both scripts: nothing here may import torch.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tff.options import (
    BOOLEAN,
    PATH,
    PATHS,
    SEED,
    Allowed,
    FieldsOf,
    allowed_by,
    any_of,
    each,
    number,
    one_of,
    suggest,
    whole,
)

_Settings = Mapping[str, Any]
_Share = Annotated[float, number(0, 1)]


class Made:
    """What the configuration makes of settings with `_target_`."""


class Augmentation:
    """Options of the group `aug`."""

    train: Made
    validation: Made
    probability: _Share = 1.0
    resize: Annotated[int, whole(1)] | None
    exact: bool


class Report:
    """Options of the group `report`."""

    protocol: Made


class Both:
    """Options that both scripts have."""

    seed: Annotated[int, SEED]
    tags: Sequence[str]
    ckpt: Annotated[str, PATHS] | None
    resume: Literal["auto", True, False] | None
    out: Annotated[str, PATH]
    data: Made
    ablation: Made
    relevance: Made
    trainer: Made
    logger: Mapping[str, Made | None]


class Train(Both):
    """Options of train.py."""

    ckpt: Annotated[str, PATH] | None
    analyze: Literal[True, False, "auto"]
    analyze_options: Sequence[str]
    optimized_metric: str
    detector: Made
    aug: Augmentation
    callbacks: Mapping[str, Made | None]
    module: Made
    origin: _Settings


class Analyze(Both):
    """Options of analyze.py."""

    run: Annotated[str, PATH] | None
    runs: Annotated[str, PATHS] | None
    images: Annotated[int, whole(1)] | None
    trained_images: Literal["exclude", "include"]
    passes: Annotated[str, PATH]
    aug: None
    detector: Made | None
    discovery: Made
    subject: Made
    report: Report
    analysis: Annotated[
        Mapping[str, Made],
        Allowed(lambda value: len(value) > 0, "at least one analysis, such as [detection]"),
    ]


SECTIONS = {"train": Train, "analyze": Analyze}


def _is_accelerator(name: str) -> bool:
    from pytorch_lightning.accelerators import AcceleratorRegistry, CUDAAccelerator, MPSAccelerator

    if name == "gpu":
        return CUDAAccelerator.is_available() or MPSAccelerator.is_available()
    known = name in AcceleratorRegistry.available_accelerators()
    return name == "auto" or (known and AcceleratorRegistry[name]["accelerator"].is_available())


def _is_strategy(name: str) -> bool:
    from pytorch_lightning.strategies import StrategyRegistry

    return name == "auto" or name in StrategyRegistry.available_strategies()


_LIMIT = Allowed(
    lambda value: whole(1).holds(value) or (isinstance(value, float) and 0 < value <= 1),
    "a whole number of batches of at least 1, or a share above 0.0 and at most 1.0, such as 0.25",
)
_ENDLESS = any_of([whole(1), Allowed(lambda value: value == -1, "-1 for no limit")])
_DEVICES = any_of(
    [
        _ENDLESS,
        each(whole(0), at_least_one=True),
        Allowed(
            lambda value: re.fullmatch(r"auto|\d+(,\d+)*,?", value) is not None,
            "auto, or numbers of devices such as '0,1'",
        ),
    ]
)
_NONE = Allowed(lambda value: value == 0 and not isinstance(value, bool), "0 for none")
_BETA = number(0, below=1)
_BETAS = Allowed(
    lambda value: len(value) == 2 and all(_BETA.holds(beta) for beta in value),
    "two numbers of at least 0 and below 1",
)
_OPTIMIZER = {
    "lr": number(above=0), "betas": _BETAS, "eps": number(0), "weight_decay": number(0),
    "momentum": number(0), "dampening": number(0), "alpha": number(0), "lr_decay": number(0),
    "rho": number(0, 1), "momentum_decay": number(0), "initial_accumulator_value": number(0),
}  # fmt: skip
_SCHEDULER = {
    "max_lr": number(above=0), "base_lr": number(above=0), "pct_start": number(0, 1),
    "div_factor": number(above=0), "final_div_factor": number(above=0), "eta_min": number(0),
    "base_momentum": number(0, below=1), "max_momentum": number(0, below=1),
    "gamma": number(above=0), "step_size": whole(1), "T_max": whole(1), "T_0": whole(1),
    "T_mult": whole(1), "total_iters": whole(0), "power": number(0), "factor": number(above=0),
    "start_factor": number(above=0, most=1), "end_factor": number(0, 1), "patience": whole(0),
    "milestones": each(whole(0)), "threshold": number(0), "cooldown": whole(0),
    "min_lr": number(0), "last_epoch": Allowed(lambda value: value == -1, "-1"),
}  # fmt: skip
_TRAINER = {
    "accelerator": Allowed(
        _is_accelerator, "auto, cpu, or the accelerator of this machine (gpu, if it had one)"
    ),
    "strategy": Allowed(_is_strategy, "auto, or a strategy of Lightning's, such as ddp"),
    "devices": _DEVICES, "num_nodes": whole(1), "max_epochs": _ENDLESS,
    "min_epochs": whole(0), "max_steps": _ENDLESS, "min_steps": whole(0),
    "limit_train_batches": _LIMIT, "limit_val_batches": any_of([_LIMIT, _NONE]),
    "val_check_interval": _LIMIT,
    "check_val_every_n_epoch": whole(1), "num_sanity_val_steps": whole(-1),
    "log_every_n_steps": whole(0), "accumulate_grad_batches": whole(1),
    "gradient_clip_val": number(0), "gradient_clip_algorithm": one_of(["norm", "value"]),
    "overfit_batches": any_of([_LIMIT, _NONE]),
    "reload_dataloaders_every_n_epochs": whole(0), "fast_dev_run": any_of([whole(0), BOOLEAN]),
    "profiler": one_of(["simple", "advanced", "pytorch"]),
}  # fmt: skip
#: Beginning of the name of a class of another package -> options of which its annotations say too
#: little.
OTHERS: dict[str, Mapping[str, Allowed | None]] = {
    "pytorch_lightning.trainer.": _TRAINER,
    "pytorch_lightning.callbacks.model_checkpoint.": {
        "dirpath": PATH, "mode": one_of(["min", "max"]), "save_top_k": whole(-1),
        "every_n_train_steps": whole(0), "every_n_epochs": whole(0),
    },
    "pytorch_lightning.callbacks.early_stopping.": {
        "mode": one_of(["min", "max"]), "patience": whole(0), "min_delta": number(),
    },
    "pytorch_lightning.loggers.csv_logs.": {
        "save_dir": PATH, "flush_logs_every_n_steps": whole(1),
    },
    "torch.optim.lr_scheduler.": _SCHEDULER,
    "torch.optim.": _OPTIMIZER,
    "albumentations.": {"height": whole(1), "width": whole(1), "p": number(0, 1)},
}  # fmt: skip


@dataclass(frozen=True)
class Declared:
    """Options of a class or function.

    Attributes:
        allowed: option -> its values; None: any.
        required: options without a default.
        open: whether it takes other options as well.
    """

    allowed: Mapping[str, Allowed | None]
    required: frozenset[str] = frozenset()
    open: bool = False


def declared_by(target: Any) -> Declared:
    """Options that a class or function declares by its signature, and `OTHERS` for it."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # written in C
        return Declared({}, open=True)
    hints = _hints(_constructor(target)[1] if isinstance(target, type) else target)
    allowed: dict[str, Allowed | None] = {}
    required: set[str] = set()
    more = False
    for option, parameter in parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            rest = _declared_by_rest(target, hints.get(option))
            allowed |= {key: value for key, value in rest.allowed.items() if key not in allowed}
            required |= rest.required
            more = rest.open
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            allowed[option] = allowed_by(hints.get(option, Any))
            required |= {option} if parameter.default is parameter.empty else set()
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in getattr(target, "__mro__", ())]
    starts = (start for start in OTHERS if any(name.startswith(start) for name in names))
    other = OTHERS.get(next(starts, ""), {})
    for option, own in other.items():
        if option in allowed and own is not None:
            # Null is the default of an optional one.
            null = allowed[option] is None or allowed[option].allows(None)  # type: ignore[union-attr]
            allowed[option] = any_of([own, _NULL]) if null else own
    return Declared(allowed, frozenset(required), more)


_NULL = Allowed(lambda value: value is None, "null")


def _declared_by_rest(target: Any, hint: Any) -> Declared:
    """What `**options` may hold: fields of a named class, or options of the base class."""
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, FieldsOf):
            return declared_by(extra.cls)
    if isinstance(target, type):
        own, _ = _constructor(target)
        bases = target.__mro__[target.__mro__.index(own) + 1 :]
        if base := next(
            (cls for cls in bases if "__init__" in vars(cls) and cls is not object), None
        ):
            return declared_by(base)
    return Declared({}, open=True)


def _constructor(cls: type) -> tuple[type, Any]:
    """The class that defines `__init__` of a class, and that method."""
    own = next(one for one in cls.__mro__ if "__init__" in vars(one))
    return own, vars(own)["__init__"]


def _hints(function: Any) -> dict[str, Any]:
    """Annotations of a function, without those that cannot be resolved."""
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # of another package, which may name what it imports for checkers only
        return {}


def prepare(cfg: DictConfig, script: str) -> None:
    """Check every option of a composed configuration, and make its paths full ones.

    What a checkpoint or a report names is then found from anywhere.

    Args:
        cfg: of the run; changed in place. Relative paths start at the folder in which the command
            was typed.
        script: `train` or `analyze`.

    Raises:
        ValueError: an option is unknown, missing or has a value that is not allowed.
    """
    check = _Check(cfg, Path(HydraConfig.get().runtime.cwd))
    check.section(SECTIONS[script], ())
    with open_dict(cfg):
        for parts, value in check.paths.items():
            parent: Any = cfg
            for part in parts[:-1]:
                parent = parent[part]
            parent[parts[-1]] = value


_Parts = tuple[str | int, ...]
_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
_MISSING = "???"


class _Check:
    """Check of one configuration.

    Attributes:
        paths: place of each option that holds a path which is not full -> the full one.
    """

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self.raw = OmegaConf.to_container(cfg, resolve=False)
        try:
            self.values = OmegaConf.to_container(cfg, resolve=True)
        except OmegaConfBaseException as error:  # of a reference
            reason = str(error.msg or error).splitlines()[0]
            raise ValueError(f"{error.full_key or 'options'}: {reason}") from error
        self.folder = folder
        self.paths: dict[_Parts, Any] = {}

    def section(self, cls: type, parts: _Parts) -> None:
        """Check settings that the annotations of a class declare."""
        hints = get_type_hints(cls, include_extras=True)
        found = self._find(parts)
        self._require_known(parts, set(found) - {"hydra"}, hints)
        # Plain values first: the classes of the others may take seconds to import.
        for option in sorted(hints, key=lambda option: isinstance(found.get(option), dict)):
            place = (*parts, option)
            if (
                isinstance(hint := hints[option], type)
                and hint is not Made
                and hint.__module__ == __name__
            ):
                self.section(hint, place)
            elif option in found:
                self.option(place, allowed_by(hint))
            elif not hasattr(cls, option) and not _is_optional(hint):
                self._fail_missing(place)

    def option(self, parts: _Parts, allowed: Allowed | None, nested: bool = True) -> None:
        """Check one option, and the settings with `_target_` in its value."""
        value, name, refers = self._find(parts), *self._name(parts)
        if isinstance(value, str) and value == _MISSING:
            self._fail_missing(parts)
        if allowed is not None:
            allowed.require(name, _hide_objects(value) if nested else value)
            if allowed.complete and not refers:
                full = allowed.complete(value, self.folder)
                if full != value:
                    self.paths[parts] = full
        if nested:
            for place in _find_objects(value, parts):
                self._object(place)

    def _object(self, parts: _Parts) -> None:
        """Check settings with `_target_` against the signature of their target."""
        settings, (name, _) = self._find(parts), self._name(parts)
        target = settings["_target_"]
        try:
            found = get_object(target)
        except Exception as error:  # of any import
            reason = " ".join(str(error.__cause__ or error).split())
            raise ValueError(f"{name}._target_={target}: cannot be imported ({reason})") from error
        declared = declared_by(found)
        given = {option for option in settings if option not in _HYDRA}
        if not declared.open:
            self._require_known(parts, given, declared.allowed)
        if not settings.get("_partial_"):
            for option in sorted(declared.required - given):
                self._fail_missing((*parts, option))
        for option in settings:
            allowed = _HYDRA.get(option) or declared.allowed.get(option)
            self.option((*parts, option), allowed, settings.get("_recursive_") is not False)

    def _require_known(self, parts: _Parts, given: set[str], known: Mapping[str, Any]) -> None:
        for option in sorted(given - set(known), key=str):
            name = ".".join(filter(None, (self._name(parts)[0], str(option))))
            raise ValueError(f"{name}: there is no such option{suggest(str(option), known)}")

    def _fail_missing(self, parts: _Parts) -> None:
        name, _ = self._name(parts)
        raise ValueError(f"{name} is needed: pass {name}=...")

    def _find(self, parts: _Parts) -> Any:
        found: Any = self.values
        for part in parts:
            found = found[part]
        return found

    def _name(self, parts: _Parts) -> tuple[str, bool]:
        """Name of the option that sets a value, and whether the value refers to another option."""
        node: Any = self.raw
        for place, part in enumerate(parts):
            node = node[part] if isinstance(node, list) else node.get(part)  # type: ignore[index]
            if isinstance(node, str) and (match := _REFERENCE.fullmatch(node)):
                return self._name((*match[1].split("."), *parts[place + 1 :]))[0], True
            if node is None:
                break
        return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)[1:], False


#: Keys of Hydra's own in settings with `_target_`.
_HYDRA = {
    "_target_": allowed_by(str), "_partial_": allowed_by(bool), "_recursive_": allowed_by(bool),
    "_convert_": allowed_by(Literal["none", "partial", "object", "all"]),
    "_args_": allowed_by(list[Any]),
}  # fmt: skip


def _is_optional(hint: Any) -> bool:
    allowed = allowed_by(hint)
    return allowed is None or allowed.allows(None)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def _hide_objects(value: Any) -> Any:
    """The value with an object, of no known kind, in place of settings with `_target_`."""
    if _is_object(value):
        return object()
    if isinstance(value, dict):
        return {key: _hide_objects(one) for key, one in value.items()}
    return [_hide_objects(one) for one in value] if isinstance(value, list) else value


def _find_objects(value: Any, parts: _Parts) -> Iterator[_Parts]:
    """Places of settings with `_target_`, the outermost ones."""
    if _is_object(value):
        yield parts
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _find_objects(one, (*parts, key))
