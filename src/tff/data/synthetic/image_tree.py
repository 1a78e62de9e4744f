"""A generated data set: its settings, and a tree of PNG files that is written once."""

from __future__ import annotations

import hashlib
import json
import platform
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar
from zlib import crc32

import numpy as np
import pandas as pd
from PIL import Image

from tff.data.datamodule import SPLITS, Data
from tff.data.manifest import Manifest, load_cache, save_cache
from tff.data.synthetic.photographs import (
    PhotographSplit,
    compute_sha256,
    list_photographs,
    load_embedded,
    load_folder,
)
from tff.options import PATH, SEED, Allowed, checked, each, whole
from tff.strict_json import dumps
from tff.types import Pixels

DESCRIPTION = "manifest.json"  # the last file of the images to be written
SOURCES = "photographs.parquet"  # of the images, written when they are first listed
COUNTS = Allowed(
    lambda counts: set(counts) == set(SPLITS) and each(whole(1)).holds([*counts.values()]),
    f"numbers of images, at least 1, for each of {', '.join(SPLITS)}",
)
S = TypeVar("S", bound="TreeSettings")


class GeneratedSet(Data):
    """A data set that is made on first use.

    Args:
        cache: folder for the images, with a subfolder for each choice of settings.
        options: see `Data`.
    """

    def __init__(self, cache: Annotated[str, PATH], **options: Any) -> None:
        super().__init__(cache=cache, **options)
        if self.group is not None:
            raise ValueError(
                f"data.group={self.group}: leave it out; the photograph of each image of this set "
                "is known"
            )
        self.cache = Path(cache).expanduser()

    @abstractmethod
    def folder(self) -> Path:
        """Folder with the images, which are made if they are missing."""

    @abstractmethod
    def find_sources(self) -> Mapping[str, list[str]]:
        """Folder of images, below that of the set -> the photograph of each image, by number."""

    @property
    def unit(self) -> str:
        return "photograph"

    def prepare_data(self) -> None:
        self._list_sources(self.folder())

    def list_images(self, split: str) -> Manifest:
        folder = self.folder()
        sources = self._list_sources(folder)
        table, skipped = self._list_folder(folder / split)
        files = [Path(path).relative_to(folder).as_posix() for path in table["path"]]
        return Manifest(table.assign(group=sources[files].to_numpy()), skipped)

    def _list_sources(self, root: Path) -> pd.Series[str]:
        """Photograph of each image, by its path below the folder of the set."""
        path = root / SOURCES
        if (table := load_cache(path, {"path": str, "photograph": str})) is None:
            rows = [
                (f"{folder}/{number:04}.png", name)
                for folder, names in self.find_sources().items()
                for number, name in enumerate(names)
            ]
            table = pd.DataFrame(rows, columns=["path", "photograph"])
            save_cache(table, path)
        return table.set_index("path")["photograph"]


@dataclass(frozen=True)
@checked("data")
class TreeSettings:
    """What the images of a generated set depend on.

    Args:
        photos: folder with photographs of the user; None for those of installed packages.
        seed: of all random choices.
        size: side of the images in pixels.
        counts: number of images of each label in `train`, `val` and, of each generator, `test`.
    """

    photos: Annotated[Path | str, PATH] | None = None
    seed: Annotated[int, SEED] = 0
    size: Annotated[int, whole(1)] = 64
    counts: Annotated[Mapping[str, int], COUNTS] = field(
        default_factory=lambda: {"train": 1500, "val": 200, "test": 100}
    )

    def load_photographs(self, smallest: int) -> PhotographSplit:
        """Read the photographs, with at least `smallest` pixels on each side."""
        if self.photos is None:
            return load_embedded()
        return load_folder(Path(self.photos), self.seed, smallest)

    def to_json(self) -> dict[str, Any]:
        """The settings, with the SHA-256 of each photograph of the user."""
        photos = self.photos and sorted(map(compute_sha256, list_photographs(Path(self.photos))))
        return asdict(self) | {"counts": dict(self.counts), "photos": photos}


def get_or_build(
    root: Path, kind: str, recipe: int, settings: S, build: Callable[[Path, S], Path]
) -> Path:
    """Folder of a data set below `root`, one for each choice of settings; built if missing.

    Args:
        root: parent of the folders.
        kind: of data set, the first part of the name.
        recipe: version of the code that makes the images.
        settings: everything else that the images depend on.
        build: writes the data set into a folder, and returns it.
    """
    key = json.dumps([recipe, settings.to_json()], sort_keys=True)
    folder = Path(root) / f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return folder if is_complete(folder) else build(folder, settings)


def is_complete(folder: Path) -> bool:
    """Whether a data set is complete."""
    return (folder / DESCRIPTION).is_file()


@contextmanager
def write_tree(folder: Path) -> Iterator[Path]:
    """A temporary folder, which becomes `folder` when all is written.

    If another process was faster, its data set stays and this one is discarded.
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


def write_images(images: Pixels, folder: Path) -> None:
    """Write images (N, H, W, 3) as 0000.png, 0001.png, ... into a new folder."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{number:04}.png")


def write_description(
    folder: Path, settings: TreeSettings, photographs: PhotographSplit, **more: Any
) -> None:
    """Write `manifest.json`: settings, credits of the photographs, versions, and `more`."""
    description = {
        "settings": settings.to_json(),
        "photographs": {
            split: [{"name": p.name, **p.credit._asdict()} for p in photographs[split]]
            for split in SPLITS
        },
        **more,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("tff", "torch", "numpy", "pillow")},
    }
    (folder / DESCRIPTION).write_text(dumps(description, indent=2) + "\n")


def random_stream(seed: int, *purpose: str) -> np.random.Generator:
    """Independent random numbers for each purpose: adding one changes no other."""
    return np.random.default_rng([seed, crc32("/".join(purpose).encode())])
