"""The same bytes under two names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pandas as pd

from tff.data.images import Images
from tff.data.source import read
from tff.progress import track


def duplicates(sets: Mapping[str, Images]) -> pd.DataFrame:
    """Files that stand in several sets, or among the real and the generated images.

    Only files of one length are read at all.

    Args:
        sets: name -> images.

    Returns:
        Columns `set`, `path`, `same_as_set`, `same_as`: each such file but the first of its bytes,
        and that one.
    """
    every = pd.concat(
        [images.manifest[["path", "label", "bytes"]].assign(set=s) for s, images in sets.items()]
    )
    every = every.drop_duplicates(["set", "path"])
    alike = every[every.duplicated("bytes", keep=False)].copy()
    rows = track(alike["path"].tolist(), "duplicates")
    alike["sha256"] = [hashlib.sha256(read(path)).hexdigest() for path in rows]
    first = alike.drop_duplicates("sha256")[["sha256", "set", "path", "label"]]
    pairs = alike.merge(first, on="sha256", suffixes=("", "_first"))
    leaks = (pairs["set"] != pairs["set_first"]) | (pairs["label"] != pairs["label_first"])
    found = pairs[leaks & (pairs["path"] != pairs["path_first"])]
    names = {"set_first": "same_as_set", "path_first": "same_as"}
    return found.rename(columns=names)[["set", "path", *names.values()]].reset_index(drop=True)
