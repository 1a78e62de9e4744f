"""A subject whose passes are kept, and the same one made again without images and network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tff.analyses.engine.cache import Kept, digest, digest_of, identity, read, write
from tff.analyses.engine.passes import Passes
from tff.analyses.engine.subject import DetectorInfo, Subject
from tff.atomic import write_json
from tff.data.datamodule import Splits
from tff.data.dataset import Images, View
from tff.distributed import fail_together, get_rank
from tff.types import Channels


def cache_passes(subject: Subject, folder: Path) -> Subject:
    """The same subject, with its passes kept in a folder, and all that makes it again.

    Args:
        subject: with a detector.
        folder: may hold passes of other subjects: what fits is used, the rest is left alone.

    Raises:
        ValueError: the subject has no detector, or its passes are kept already.
    """
    info, passes = subject.info, subject.passes
    if not isinstance(passes, Passes):
        raise ValueError("only passes of a subject with a detector can be kept, and only once")
    shift, scale = subject.detector.mean.tolist(), subject.detector.std.tolist()
    rules = subject.lrp.protocol, info.accounts
    detector = digest_of(subject.detector.network, *rules, shift, scale)
    home = folder.expanduser() / detector[:12]
    sets = {"discovery": subject.images.discovery, "test": subject.images.test}
    told = {n: digest([identity(found), _facts(found)])[:12] for n, found in sets.items()}
    files = {name: f"images-{of_set}.parquet" for name, of_set in told.items()}
    facts: dict[str, Any] = {
        "detector": detector,
        "widths": dict(info.channels.widths),
        "twins": info.twins.tolist(),
        "tff_fraction": info.tff_fraction,
        "accounts": info.accounts,
        "max_leak": info.max_leak,
        "protocol": subject.protocol,
        "images": files,
    }
    with fail_together():
        if get_rank() == 0:
            for name, found in sets.items():
                if not (home / files[name]).exists():
                    write(home / files[name], found.manifest, _facts(found))
            write_json(home / f"subject-{digest(files)[:12]}.json", facts)
    return replace(
        subject, passes=Kept(passes, home, detector, info.channels), _done={}, _dropped={}
    )


def replay(place: Path, make: Callable[..., Subject]) -> Subject:
    """The subject whose passes were kept, for other tables from the same numbers.

    Args:
        place: the folder of the passes, or the `subject-....json` in it.
        make: `Subject.of` with the options of the new look. Passes that it needs must be there:
            another k or seed drops other channels.

    Raises:
        FileNotFoundError: there is no such subject.
        ValueError: there are several, or the file is broken.
    """
    place = place.expanduser()
    found = [place] if place.suffix == ".json" else sorted(place.rglob("subject-*.json"))
    if not found or not found[0].is_file():
        raise FileNotFoundError(
            f"passes={place}: no kept passes there (subject-....json); run analyze.py with "
            f"ckpt=... passes={place} first"
        )
    if len(found) > 1:
        raise ValueError(
            f"passes={place}: holds several subjects; choose one: "
            + ", ".join(f"passes={path}" for path in found)
        )
    try:
        facts = json.loads(found[0].read_text(encoding="utf-8"))
        info = DetectorInfo(
            Channels(facts["widths"]),
            torch.tensor(facts["twins"]),
            facts["tff_fraction"],
            [(name, rule) for name, rule in facts["accounts"]],
            facts["max_leak"],
        )
        home, files, protocol = found[0].parent, facts["images"], facts["protocol"]
        kept = Kept(None, home, facts["detector"], info.channels)
        sets = [home / files[name] for name in ("discovery", "test")]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{found[0]}: broken ({error!r}); delete it and run again") from None
    subject = make(None, Splits(*map(_images, sets)))
    described = protocol | subject.protocol | {"protocol": subject.options.scoring.name}
    return replace(subject, passes=kept, info=info, protocol=described)


def _facts(images: Images) -> dict[str, object]:
    return {
        "crop": images.view.crop,
        "resize": images.view.resize,
        "seed": images.seed,
        "match_format": images.match_format,
        "real_of": dict(images.real_of),
        "notes": list(images.notes),
    }


def _images(path: Path) -> Images:
    manifest, facts = read(path)
    view = View(facts["crop"], facts["resize"])
    return Images(
        manifest,
        view,
        seed=facts["seed"],
        match_format=facts["match_format"],
        real_of=facts["real_of"],
        notes=tuple(facts["notes"]),
    )
