"""A subject whose passes are kept, and the same one made again without images and network."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tff.analyses.kept import Kept
from tff.analyses.network import Network
from tff.analyses.passes import Passes
from tff.analyses.passfile import digest, digest_of, identity, read, write
from tff.analyses.subject import Subject
from tff.data.images import Images
from tff.data.splits import Splits
from tff.data.views import View
from tff.process import place
from tff.types import Channels


def keep(subject: Subject, folder: Path) -> Subject:
    """The same subject, with its passes kept in a folder, and all that makes it again.

    Args:
        subject: with a detector.
        folder: may hold passes of other subjects: what fits is used, the rest is left alone.
    """
    network, passes = subject.network, subject.passes
    assert isinstance(passes, Passes)
    lrp = {"relevance": subject.lrp.protocol, "mean": subject.detector.mean.tolist()}
    detector = digest_of(subject.detector.network, lrp, subject.detector.std.tolist())
    home = folder.expanduser() / detector[:12]
    sets = {"discovery": subject.images.discovery, "test": subject.images.test}
    files = {name: f"images-{digest(identity(found))[:12]}.parquet" for name, found in sets.items()}
    facts: dict[str, Any] = {
        "detector": detector,
        "widths": dict(network.channels.widths),
        "twins": network.twins.tolist(),
        "tff_fraction": network.tff_fraction,
        "accounts": network.accounts,
        "max_leak": network.max_leak,
        "protocol": subject.protocol,
        "images": files,
    }
    if place()[0] == 0:
        for name, found in sets.items():
            if not (home / files[name]).exists():
                write(home / files[name], found.manifest, _facts(found))
        _write_text(home / f"subject-{digest(files)[:12]}.json", json.dumps(facts, indent=1))
    return replace(
        subject, passes=Kept(passes, home, detector, network.channels), _done={}, _dropped={}
    )


def again(place: Path, make: Callable[..., Subject]) -> Subject:
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
        network = Network(
            Channels(facts["widths"]),
            torch.tensor(facts["twins"]),
            facts["tff_fraction"],
            [(name, rule) for name, rule in facts["accounts"]],
            facts["max_leak"],
        )
        home, files, protocol = found[0].parent, facts["images"], facts["protocol"]
        kept = Kept(None, home, facts["detector"], network.channels)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{found[0]}: broken ({error!r}); delete it and run again") from None
    subject = make(None, Splits(*(_images(home / files[n]) for n in ("discovery", "test"))))
    described = protocol | subject.protocol
    return replace(subject, passes=kept, network=network, protocol=described)


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


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.rename(path)
