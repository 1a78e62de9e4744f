"""Subjects with cached passes, and the same subjects rebuilt without images and network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tff.analyses.engine.cache import Cache, digest, digest_network, identify, read, write
from tff.analyses.engine.subject import DetectorInfo, Subject
from tff.atomic import write_json
from tff.data.datamodule import Splits
from tff.data.dataset import Images, View
from tff.distributed import fail_together, get_rank
from tff.foreign_files import read_json
from tff.types import Channels


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
                    write(home / files[name], images.manifest, _describe(images))
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
        info = DetectorInfo(
            Channels(facts["widths"]),
            torch.tensor(facts["twins"]),
            facts["tff_fraction"],
            [(name, rule) for name, rule in facts["accounts"]],
            facts["max_leak"],
        )
        cache, protocol = Cache(path.parent, facts["detector"]), facts["protocol"]
        sets = [path.parent / facts["images"][name] for name in ("discovery", "test")]
    except (KeyError, TypeError, ValueError) as error:
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
    }


def _read_images(path: Path) -> Images:
    manifest, facts = read(path)
    view = View(facts.pop("crop"), facts.pop("resize"))
    texts = {name: tuple(facts.get(name, ())) for name in ("notes", "alarms")}
    return Images(manifest, view, **facts | texts)
