"""Subjects with cached passes, and the same subjects rebuilt without images and network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tff.analyses.engine.cache import Cache, digest, digest_network, identify
from tff.analyses.engine.subject import DetectorInfo, Subject
from tff.atomic import write_json
from tff.data.datamodule import Splits
from tff.data.dataset import Images, View
from tff.distributed import fail_together, get_rank
from tff.errors import explain
from tff.foreign_files import read_json
from tff.parquet import read, write
from tff.types import KINDS, Channels

_MAX_CHANNELS = 10_000_000


def _is_text(column: pd.Series[Any]) -> bool:
    return all(isinstance(cell, str) for cell in column)


_NEEDED = ("path", "label", "generator", "digest")
#: Columns of a set of images -> whether their values can be used.
_COLUMNS: dict[str, Callable[[pd.Series[Any]], bool]] = {
    **dict.fromkeys(
        ("path", "generator", "class", "group", "format", "mode", "chroma", "note"), _is_text
    ),
    **dict.fromkeys(
        ("label", "bytes", "digest", "height", "width", "quality"), pd.api.types.is_integer_dtype
    ),
}


def cache_passes(subject: Subject, folder: Path) -> Subject:
    """The same subject with its passes cached in a folder, from which `replay` rebuilds it.

    Args:
        subject: with a detector.
        folder: may hold passes of other subjects, which are used if they fit.

    Raises:
        ValueError: the subject has no detector, or its passes are cached already.
    """
    if subject.cache.folder is not None:
        raise ValueError(f"passes of this subject are cached already, in {subject.cache.folder}")
    info, detector = subject.info, subject.detector
    shift, scale = detector.mean.tolist(), detector.std.tolist()
    network, protocol = detector.network, subject.lrp.protocol
    weights = digest_network(network, protocol, info.leaky_operations, shift, scale)
    home = folder.expanduser() / weights[:12]
    sets = {"discovery": subject.images.discovery, "test": subject.images.test}
    files = {
        name: f"images-{digest([identify(images), _describe(images)])[:12]}.parquet"
        for name, images in sets.items()
    }
    facts: dict[str, Any] = {
        "detector": weights,
        "widths": dict(info.channels.widths),
        "kinds": dict(info.channels.kinds),
        "first": dict(info.channels.first),
        "twins": info.twins.tolist(),
        "tff_fraction": info.tff_fraction,
        "accounts": info.leaky_operations,
        "max_leak": info.max_leak,
        "protocol": subject.protocol,
        "images": files,
    }
    with fail_together():
        if get_rank() == 0:
            for name, images in sets.items():
                if not (home / files[name]).exists():
                    rows = images.manifest.assign(digest=images.digests)
                    write(home / files[name], rows, _describe(images))
            write_json(home / f"subject-{digest(files)[:12]}.json", facts)
    return replace(subject, cache=Cache(home, weights))


def find_subjects(passes: Path) -> list[Path]:
    """Files of the subjects in a folder of cached passes; or the file itself, if one is given."""
    if passes.suffix == ".json":
        return [passes] if passes.is_file() else []
    return sorted(passes.rglob("subject-*.json"))


def replay(passes: Path, make: Callable[..., Subject]) -> Subject:
    """The subject of cached passes, from which tables are computed without images and network.

    All passes that its options need must be cached: another k or seed drops other channels.

    Args:
        passes: folder of the cached passes, or a `subject-....json` in it.
        make: `Subject.of` with its options.

    Raises:
        FileNotFoundError: there is no such subject.
        ValueError: there are several, or the file is damaged.
    """
    passes = passes.expanduser()
    if not (found := find_subjects(passes)):
        raise FileNotFoundError(
            f"passes={passes}: holds no cached passes (subject-....json); run analyze.py with "
            f"ckpt=... passes={passes} first"
        )
    if len(found) > 1:
        raise ValueError(
            f"passes={passes}: holds several subjects; choose one: "
            + ", ".join(f"passes={path}" for path in found)
        )
    (path,) = found
    try:
        facts = read_json(path)
        info, protocol = _read_detector(facts), dict(facts["protocol"])
        cache = Cache(path.parent, _require(facts["detector"], str))
        sets = [path.parent / _read_name(facts["images"][name]) for name in ("discovery", "test")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: damaged ({error!r}); delete it and run again") from None
    subject = make(None, Splits(*map(_read_images, sets)))
    protocol = protocol | subject.protocol | {"protocol": subject.options.scoring.name}
    return replace(subject, cache=cache, protocol=protocol, _info=info)


def _describe(images: Images) -> dict[str, object]:
    return {
        "crop": images.view.crop,
        "resize": images.view.resize,
        "seed": images.seed,
        "match_format": images.match_format,
        "real_of": dict(images.real_of),
        "notes": list(images.notes),
        "alarms": list(images.alarms),
        # The passes do not depend on groups, but the tables do.
        **(
            {} if images.groups is None else {"unit": images.unit, "groups": _digest_groups(images)}
        ),
    }


def _digest_groups(images: Images) -> str:
    return digest(images.manifest["group"].tolist())


def _read_detector(facts: Any) -> DetectorInfo:
    """Facts about the detector in a file of a subject; raises nearly anything if they are wrong."""
    widths = {_require(layer, str): _require(n, int) for layer, n in facts["widths"].items()}
    kinds = facts.get("kinds", {})  # files of older versions have none
    if not all(layer in widths and kind in KINDS for layer, kind in kinds.items()):
        raise ValueError(f"kinds {kinds}")
    first = {layer: _require(n, int) for layer, n in facts.get("first", {}).items()}
    if not all(layer in widths and 0 <= n <= _MAX_CHANNELS for layer, n in first.items()):
        raise ValueError(f"first {first}")
    channels = Channels(widths, kinds, first)
    if not widths or min(widths.values()) < 1 or len(channels) > _MAX_CHANNELS:
        raise ValueError(f"{len(channels)} channels")
    twins = [_require(twin, int) for twin in facts["twins"]]
    if len(twins) != len(channels) or not all(-1 <= twin < i for i, twin in enumerate(twins)):
        raise ValueError("twins of other channels")
    accounts = [(_require(name, str), _require(rule, str)) for name, rule in facts["accounts"]]
    fraction, leak = (_require(facts[name], int | float) for name in ("tff_fraction", "max_leak"))
    if not 0 < fraction <= 1:
        raise ValueError(f"tff_fraction={fraction}")
    return DetectorInfo(channels, torch.tensor(twins), fraction, accounts, leak)


def _require(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not of type {getattr(kind, '__name__', kind)}")
    return value


def _read_name(name: str) -> str:
    """Name of a file beside that of the subject."""
    if Path(name).name != name:
        raise ValueError(f"{name!r} is no name of a file")
    return name


def _read_images(path: Path) -> Images:
    try:
        manifest, facts = read(path)
    except OSError as error:
        remedy = "run analyze.py with ckpt=... and the same passes=... to write it again"
        raise ValueError(f"{explain(error)}; {remedy}") from None
    try:
        missing = [
            name for name in ("path", "label", "generator", "digest") if name not in manifest
        ]
        wrong = [c for c, fits in _COLUMNS.items() if c in manifest and not fits(manifest[c])]
        if missing or wrong:
            raise ValueError(f"the column {(missing + wrong)[0]} is missing or of another type")
        if not manifest["label"].isin([0, 1]).all():
            raise ValueError("labels are 0 and 1")
        return Images(
            manifest,
            View(facts["crop"], facts["resize"]),
            seed=_require(facts["seed"], int),
            match_format=facts["match_format"] is True,
            real_of={str(name): str(real) for name, real in facts["real_of"].items()},
            notes=tuple(map(str, facts["notes"])),
            alarms=tuple(map(str, facts["alarms"])),
            unit=str(facts.get("unit", "group")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete it and run again") from None
