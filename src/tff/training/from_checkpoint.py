"""Detector, data and fingerprint of a checkpoint, and the subject made of them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from tff.analyses.engine.replay import cache_passes, find_subjects, replay
from tff.analyses.engine.subject import Subject
from tff.data.datamodule import PURPOSES, Data, Splits
from tff.data.dataset import Used
from tff.data.folder import Folder, require_one_root
from tff.detectors.checkpoint import build, load, origin_of
from tff.detectors.detector import Detector
from tff.detectors.safe_load import read_with_sha256
from tff.foreign_files import read_yaml
from tff.options import one_of
from tff.types import Ints

log = logging.getLogger(__name__)
#: Entry of a checkpoint: split -> digests of the images that the training used of it.
USED_IMAGES = "tff_images"


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint file.

    Attributes:
        path: of the file.
        content: tensors and plain containers.
        sha256: of the file.
    """

    path: str
    content: Mapping[str, Any]
    sha256: str

    @classmethod
    def read(cls, path: str) -> Checkpoint:
        """Read a checkpoint file, unless its content is in use already.

        Raises:
            FileNotFoundError, ValueError: see `detectors.safe_load.read`.
        """
        if (known := _IN_USE.get(path)) is None:
            known = _IN_USE[path] = cls(path, *read_with_sha256(path))
        return known

    @property
    def fingerprint(self) -> str:
        """File name and digest of the content: `best.ckpt sha256:0123456789ab`."""
        return _shorten(self.path, self.sha256)

    def rebuild(self, detector: Mapping[str, Any] | None = None) -> Detector:
        """The detector, see `detectors.checkpoint.load`."""
        return load(self.path, detector, self.content)

    @cached_property
    def data(self) -> Data:
        """The data its detector was trained on, without augmentation.

        Raises:
            ValueError: the checkpoint does not name its data, or would create a folder outside the
                working folder.
        """
        settings = origin_of(self.content, self.path).get("data")
        if not settings:
            raise ValueError(
                f"checkpoint {self.path}: does not name its data. Pass data=folder data.root=DIR "
                "for the test images, and data@discovery=folder discovery.root=DIR for the images "
                "on which channels are ranked (of the generator that the detector was trained on)"
            )
        if isinstance(settings, Mapping):
            settings = _find_folders(settings, Path(self.path).expanduser())
            _refuse_foreign_folder(settings.get("cache"), self.path)
        # That `Data` is abstract does not matter: a class derived from it is built.
        kind: type[Data] = Data  # type: ignore[type-abstract]
        return build(settings, self.path, "tff.data", kind, augmentation=None, workers=0)

    def select_images(
        self, tested: Data | None = None, ranked: Data | None = None, include_trained: bool = False
    ) -> Splits:
        """Images of an analysis, none of which served another purpose before.

        The data of the checkpoint keep the division of its training. Of another undivided tree all
        images are used; or if it both ranks and tests, its validation part ranks.

        Args:
            tested: data on which channels are tested; None: those of the checkpoint.
            ranked: data on which they are ranked; None: those of the checkpoint.
            include_trained: use images of the training all the same, with an alarm on each page.

        Raises:
            ValueError: no images are left, or images cannot be used.
        """
        tested, ranked = tested or self.data, ranked or self.data
        self.require_folder(tested, ranked)
        digests = self.used_images()
        used = {
            split: Used(found, PURPOSES[split], include_trained)
            for split, found in (digests or {}).items()
        }
        own = self.__dict__.get("data")  # None: not needed, since other data are named
        divided = ranked is own or not ranked.undivided or _is_same_tree(ranked, tested)
        train = [used["train"]] if "train" in used else []
        discovery = ranked.images("val" if divided else "all", *train)
        new = np.setdiff1d(discovery.digests, used["val"].digests if "val" in used else [])
        taken = Used(new, "on which channels are ranked", include_trained)
        whole = tested.undivided and tested is not own
        test = tested.images("all" if whole else "test", *used.values(), taken)
        if own is not None:  # other data have not trained the detector
            discovery = own.note_shared_groups(discovery) if ranked is own else discovery
            test = own.note_shared_groups(test) if tested is own else test
        if digests is None:
            note = "The checkpoint does not name its training images; they may be among these."
            discovery, test = (replace(s, notes=(*s.notes, note)) for s in (discovery, test))
        return Splits(discovery, test)

    def require_folder(self, *data: Data) -> None:
        """Raise FileNotFoundError if data of the checkpoint are among these and are not here."""
        root = getattr(own := self.__dict__.get("data"), "root", None)
        if root is not None and own in data and not root.is_dir():
            raise FileNotFoundError(
                f"image folder {root}: no such folder; the checkpoint {self.path} names it. Name "
                "another: data=folder data.root=DIR data@discovery=folder discovery.root=DIR"
            )

    def used_images(self) -> dict[str, Ints] | None:
        """Digests of the images that its training used, by split; None if that is not known.

        Raises:
            ValueError: the checkpoint holds something else in their place.
        """
        if (found := self.content.get(USED_IMAGES)) is not None:
            if not _are_digests(found):
                raise ValueError(f"checkpoint {self.path}: holds no digests in {USED_IMAGES!r}")
            return {split: digests.numpy() for split, digests in found.items()}
        try:  # before version 0.2
            return self.data.used_in_training()
        except (ValueError, OSError):
            return None


def _are_digests(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        split in PURPOSES and isinstance(d, Tensor) and d.dtype == torch.int64 and d.ndim == 1
        for split, d in value.items()
    )


def record_images(data: Data, pretrained: object) -> dict[str, Tensor]:
    """Content of `USED_IMAGES` for a training on this data.

    Args:
        data: of the training.
        pretrained: option of the detector; images of the training of a checkpoint count too.
    """
    found = data.used_in_training()
    if isinstance(pretrained, str) and Path(pretrained).expanduser().is_file():
        earlier = Checkpoint.read(pretrained).used_images() or {}
        found["train"] = np.unique(np.concatenate([found["train"], *earlier.values()]))
    return {split: torch.from_numpy(digests) for split, digests in found.items()}


#: Checkpoints in use by path: a subject needs the same one for its detector and its data.
_IN_USE: WeakValueDictionary[str, Checkpoint] = WeakValueDictionary()


def load_data(ckpt: Any) -> Data | None:
    """The data that the detector of a checkpoint was trained on (`data=checkpoint`), see
    `Checkpoint.data`; None without a checkpoint.
    """
    return None if ckpt is None else Checkpoint.read(ckpt).data


def _find_folders(settings: Mapping[str, Any], ckpt: Path) -> dict[str, Any]:
    """Settings of the data of a checkpoint, with its folders as they are found here.

    Before version 0.2, paths were relative to the folder in which the training was started. The
    files beside the checkpoint may say which one that was; else it is the working folder. Where the
    default cache of another machine does not exist here, it is the default one of this machine.
    """
    found = dict(settings)
    for option in ("root", "photos"):
        path = found.get(option)
        if isinstance(path, str) and path[:1] not in ("/", "~"):
            start = _starting_folder(ckpt)
            found[option] = os.path.normpath((start or Path.cwd()) / path)
            if start is None:
                log.warning(
                    "checkpoint %s names data.%s=%s, but not below which folder: taken as %s",
                    ckpt, option, path, found[option],
                )  # fmt: skip
    cache = found.get("cache")
    if isinstance(cache, str) and cache.endswith(f"/{CACHE}") and not os.path.isdir(cache):
        found["cache"] = os.environ.get("TFF_CACHE") or str(Path.cwd() / CACHE)
    return found


#: Folder of `conf/data/common.yaml` for properties of files and generated sets.
CACHE = "outputs/cache"


def _starting_folder(ckpt: Path) -> Path | None:
    """Folder in which the training of a checkpoint was started; None if that is not known."""
    try:
        hydra = read_yaml(ckpt.resolve().parents[1] / ".hydra" / "hydra.yaml")
        folder = Path(hydra["hydra"]["runtime"]["cwd"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return folder if folder.is_dir() else None


def _refuse_foreign_folder(cache: object, ckpt: str) -> None:
    """Refuse to create a folder outside the working folder for a checkpoint of unknown origin."""
    try:
        folder = None if cache is None else Path(str(cache)).expanduser().resolve()
        allowed = folder is None or folder.is_dir() or folder.is_relative_to(Path.cwd())
    except (OSError, ValueError, RuntimeError):  # no path at all, or of an unknown user
        allowed = False
    if not allowed:
        raise ValueError(
            f"checkpoint {ckpt}: would create {cache!r} as the cache of its data. If you trust the "
            "file, create that folder; otherwise name the data: data=... data@discovery=..."
        )


def fingerprint(path: str) -> str:
    """Fingerprint of a checkpoint file that need not be parsed, see `Checkpoint.fingerprint`."""
    with Path(path).expanduser().open("rb") as stream:
        return _shorten(path, hashlib.file_digest(stream, "sha256").hexdigest())


def _shorten(path: str, sha256: str) -> str:
    return f"{Path(path).name} sha256:{sha256[:12]}"


def load_subject(
    ckpt: str | None,
    make: Callable[..., Subject],
    data: Callable[[], Data | None],
    discovery: Callable[[], Data | None],
    *,
    passes: str,
    detector: Mapping[str, Any] | None = None,
    images: int | None = None,
    trained_images: str = "exclude",
) -> Subject:
    """The subject of a checkpoint, of cached passes, or of files without a detector.

    Args:
        ckpt: path; None: a subject of the files in `data`, or if there are none, that of passes
            which an earlier run has cached.
        make: `Subject.of` with its options.
        data: makes the data with the test images.
        discovery: makes the data on whose validation images channels are ranked.
        passes: folder of the cached passes.
        detector: `_target_` and arguments of the detector, for a checkpoint that does not name it.
        images: maximum number of images per generator and label.
        trained_images: `exclude` or `include` images that the training of the detector has used.

    Raises:
        ValueError: there is neither checkpoint nor data nor a cached pass; or as `make`, `replay`
            and `Checkpoint`.
        FileNotFoundError: no such checkpoint, or no such subject of cached passes.
    """
    if ckpt is None:
        if (files := data()) is not None:
            return make(None, files.all_splits().subsample(images))
        folder = Path(passes).expanduser()
        if folder.suffix == ".json" or find_subjects(folder):
            return replay(folder, make)
        raise ValueError(
            "ckpt is needed: pass ckpt=..., or data=... to analyze the files alone (analysis=audit)"
        )
    one_of(("exclude", "include")).require("trained_images", trained_images)
    checkpoint = Checkpoint.read(ckpt)
    rebuilt = checkpoint.rebuild(detector)
    ranked, tested = discovery() or checkpoint.data, data() or checkpoint.data
    checkpoint.require_folder(ranked, tested)
    require_one_root(ranked, tested)
    splits = checkpoint.select_images(tested, ranked, trained_images == "include")
    subject = make(rebuilt, splits.subsample(images), weights=checkpoint.fingerprint)
    return cache_passes(subject, Path(passes))


def _is_same_tree(one: Data, other: Data) -> bool:
    if not (isinstance(one, Folder) and isinstance(other, Folder)):
        return False
    return one.root.resolve() == other.root.resolve()
