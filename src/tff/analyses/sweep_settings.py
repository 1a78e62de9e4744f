"""What a training was asked for, from the settings that Hydra kept beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from tff.analyses.runs_of import STARTED

#: Columns of their own, or what says where a training went on or wrote to.
NOT_SWEPT = ("seed", "detector", "detector.name", "aug", "out", "tags", "ckpt")


@dataclass(frozen=True)
class Settings:
    """Settings of one training.

    Attributes:
        config: the composed settings, references unresolved.
        choices: option group -> what was chosen.
        overrides: option -> value, as typed on the command line or set by the sweep.
    """

    config: Mapping[str, Any]
    choices: Mapping[str, Any]
    overrides: Mapping[str, str]

    @classmethod
    def of(cls, run: Path) -> Settings:
        """Read them; files that are not there count as empty.

        Raises:
            ValueError: a file cannot be read; the message names it.
        """
        folder = run / STARTED
        hydra = _mapping(_read(folder / "hydra.yaml")).get("hydra")
        typed = _read(folder / "overrides.yaml")
        pairs = [str(o).lstrip("+~").partition("=") for o in typed or []]
        return cls(
            _mapping(_read(folder / "config.yaml")),
            _mapping(_mapping(_mapping(hydra).get("runtime")).get("choices")),
            {key: value for key, _, value in pairs},
        )

    def value(self, key: str) -> str:
        """Of an option, the same words for the same value, however it was typed."""
        if key in self.choices:
            found = self.choices[key]
        else:
            found = self.config
            for part in key.split("."):
                if not isinstance(found, Mapping) or part not in found:
                    return self.overrides.get(key, "")
                found = found[part]
        return "null" if found is None else str(found)

    @property
    def detector(self) -> str:
        """Such as `resnet50`, or `timm convnext_tiny` where the group does not tell the network."""
        network = self.config.get("detector")
        name = network.get("name") if isinstance(network, Mapping) else None
        chosen = self._chosen("detector") or str(name or "unknown")
        return chosen if name in (None, chosen) else f"{chosen} {name}"

    @property
    def aug(self) -> str:
        """Name of the augmentations."""
        return self._chosen("aug") or "unknown"

    @property
    def seed(self) -> str:
        """Of the training; text, since a table may hold jobs that do not tell it."""
        return self.value("seed")

    def _chosen(self, group: str) -> str:
        found = self.choices.get(group)
        return str(found if found is not None else self.overrides.get(group, ""))


def swept(settings: Sequence[Settings]) -> list[str]:
    """Options that somebody set and that differ between trainings, but for `NOT_SWEPT`.

    Trainings that tell nothing of their settings are passed over.
    """
    known = [one for one in settings if one.config or one.overrides]
    keys = dict.fromkeys(key for one in known for key in one.overrides)
    return [k for k in keys if k not in NOT_SWEPT and len({one.value(k) for one in known}) > 1]


def _read(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{path}: cannot be read as settings ({error})") from None


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
