"""Are the training images those of the checkpoint, wherever they lie now?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pytorch_lightning import Trainer

from tff.data.datamodule import Data


def fingerprint(trainer: Trainer) -> dict[str, Any] | None:
    """Number and digest of names, labels and generators of the training images, in their order."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, Data):
        return None
    table = data.manifest("train")
    # A folder may be copied to the disk of another machine; files keep their names.
    names = table["path"].astype(str).str.rsplit("/", n=1).str[-1]
    rows = pd.DataFrame({"name": names, "label": table["label"], "generator": table["generator"]})
    values = pd.util.hash_pandas_object(rows.astype(str), index=False).to_numpy()
    return {"count": len(rows), "digest": hashlib.sha256(values.tobytes()).hexdigest()[:16]}


def check(then: Mapping[str, Any] | None, trainer: Trainer) -> None:
    """Compare with what a checkpoint has kept.

    Raises:
        ValueError: the images differ; the order of batches and all that was learnt would, too.
    """
    now = fingerprint(trainer) if then else None
    if then and now and dict(then) != now:
        raise ValueError(
            f"the checkpoint was trained on {then['count']:,} images, and the {now['count']:,} "
            "training images of these settings are others. Give the same data (data.root, "
            "data.generators, data.classes, data.limit, ...), or train anew in another folder"
        )
