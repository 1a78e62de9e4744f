"""A tree of generated images, written once and found again."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tff.data.datamodule import SPLITS
from tff.data.synthetic.photographs import Split

MANIFEST = "manifest.json"  # the last file to be written


def cache_folder(root: Path, kind: str, recipe: int, settings: Mapping[str, Any]) -> Path:
    """Folder of a data set below `root`, one for each choice of settings.

    Args:
        kind: of data set, the first part of the name.
        recipe: number of the way in which the images are made.
        settings: all that the images depend on besides, as JSON holds it.
    """
    key = json.dumps([recipe, settings], sort_keys=True)
    return Path(root) / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def is_complete(folder: Path) -> bool:
    """Whether a data set is there."""
    return (folder / MANIFEST).is_file()


@contextmanager
def publish(folder: Path) -> Iterator[Path]:
    """A scratch folder beside `folder` that takes its place when all went well.

    If another process was faster, its data set stays and the draft is discarded.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        draft = Path(scratch) / folder.name
        draft.mkdir()
        yield draft
        try:
            draft.rename(folder)
        except OSError:
            if not is_complete(folder):
                raise


def write_images(images: NDArray[np.uint8], folder: Path) -> None:
    """Write images (N, H, W, 3) as 0000.png, 0001.png, ... in a new folder."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{number:04}.png")


def write_description(folder: Path, settings: Mapping[str, Any], split: Split, **more: Any) -> None:
    """Write `manifest.json`: settings, credits of the photographs, versions, and what else."""
    manifest = {
        "settings": settings,
        "photographs": {
            part: [{"name": p.name, **p.credit._asdict()} for p in split[part]] for part in SPLITS
        },
        **more,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("tff", "torch", "numpy", "pillow")},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def require_counts(counts: Mapping[str, int]) -> None:
    """Refuse numbers of images with which no data set can be made.

    Raises:
        ValueError: a set is missing, unknown or empty.
    """
    if set(counts) != set(SPLITS) or min(counts.values()) < 1:
        raise ValueError(f"counts must name {', '.join(SPLITS)}, each at least 1: {dict(counts)}")


def random_stream(seed: int, *purpose: str) -> np.random.Generator:
    """Random numbers of their own for each purpose: one part more changes no other."""
    return np.random.default_rng([seed, crc32("/".join(purpose).encode())])
