"""Results of passes kept on disk.

One Parquet file a pass, named by a digest of all that its numbers depend on, and that description
in the file itself; a pass that kept more than is asked for will do. A run that was killed goes on
behind its last complete pass; runs that differ in one cue share the others; tables are made again
without images and network (`replay.again`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from tff.analyses.engine.passes import Activity, Cue, Outputs, Passes, Relevance
from tff.atomic import remove_abandoned, write_atomically
from tff.data.dataset import Images
from tff.distributed import broadcast, fail_together, get_rank
from tff.relevance.conservation import COLUMNS
from tff.types import Channels, Floats, Ints

# RecursionError: of JSON that is nested thousands of times.
_BROKEN = (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError)


def write(path: Path, table: pd.DataFrame, facts: Mapping[str, object]) -> None:
    """Write a table with facts beside it, whole or not at all."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata(
        {**(arrow.schema.metadata or {}), b"tff": json.dumps(facts).encode()}
    )
    remove_abandoned(path.parent)
    with write_atomically(path) as part:
        pq.write_table(arrow, part, compression="zstd")


def read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and its facts.

    Raises:
        ValueError: the file is broken or was not written by `write`.
    """
    facts = _facts(path)
    with _readable(path):
        return pq.read_table(path).to_pandas(), facts


def _facts(path: Path) -> dict[str, Any]:
    """What stands beside the table in a file, without the table."""
    with _readable(path):
        return dict(json.loads(pq.read_schema(path).metadata[b"tff"]))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise ValueError(f"{path}: not a file of tff ({error}); delete it and run again") from None


def fitting(folder: Path, name: str, key: Mapping[str, Any]) -> Path:
    """The file of a pass, or one of the same kind that holds it and more, or where it belongs.

    Raises:
        ValueError: a file of this kind is broken.
    """
    path = folder / f"{name}-{digest(key)[:12]}.parquet"
    if path.exists():
        return path
    others = sorted(folder.glob(f"{name}-*.parquet"))
    return next((other for other in others if covers(_facts(other).get("key"), key)), path)


def covers(kept: Any, wanted: Mapping[str, Any]) -> bool:
    """Whether a pass holds all that is wanted: lists and mappings may hold more, the rest is equal.

    Thus logits are found in a pass that kept responses of channels too.
    """
    if not isinstance(kept, Mapping) or kept.keys() != wanted.keys():
        return False
    for name, value in wanted.items():
        if type(kept[name]) is not type(value):
            return False
        if isinstance(value, list):
            fits = set(value) <= set(kept[name])
        elif isinstance(value, dict):
            fits = value.items() <= kept[name].items()
        else:
            fits = kept[name] == value
        if not fits:
            return False
    return True


def digest_of(network: nn.Module, *more: object) -> str:
    """Of the layers of a network with all their weights, and of what else there is."""
    layers = re.sub(r" at 0x[0-9a-f]+", "", repr(network))  # strides and the like are no weights
    state = hashlib.sha256(json.dumps([layers, *(str(m) for m in more)]).encode())
    for name, value in sorted(network.state_dict().items()):
        state.update(name.encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def identity(images: Images) -> dict[str, object]:
    """What tells a set of images, as it is seen, from any other one."""
    columns = [c for c in ("path", "label", "generator", "bytes") if c in images.manifest]
    # As text, since a type may change on its way through a file.
    text = images.manifest[columns].astype(str).astype(object)
    content = pd.util.hash_pandas_object(text, index=False).to_numpy()
    return {
        "images": hashlib.sha256(content.tobytes()).hexdigest(),
        "view": str(images.view),
        "match_format": images.match_format,
        "seed": images.seed,
    }


def digest(value: object) -> str:
    """Of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


_SAMPLE = "all channels"  # column of the responses of all channels


@dataclass(frozen=True)
class Kept:
    """The same as `Passes`, from files where there are such.

    Args:
        passes: does what is not there yet; None: nothing may be missing.
        folder: of the files.
        detector_digest: what the numbers depend on besides images and arguments.
        channels: the numbering of the detector's channels.
    """

    passes: Passes | None
    folder: Path
    detector_digest: str
    channels: Channels

    def __getattr__(self, name: str) -> Any:
        """Detector, relevance method and device are those of the passes."""
        if name.startswith("__") or "passes" not in vars(self):  # what copying and pickling ask for
            raise AttributeError(name)
        return getattr(self._needed(f"the detector ({name})"), name)

    def relevance(self, images: Images, confidence: float) -> dict[str, Relevance]:
        """See `Passes.relevance`."""
        key = self._key("relevance", images, confidence=confidence)

        def make() -> tuple[pd.DataFrame, dict[str, Any]]:
            found = self._needed("relevance").relevance(images, confidence)
            table, facts = self.channels.table(), {}
            for kind, of in found.items():
                table[f"omega_{kind}"], table[f"error_{kind}"] = of.omega, of.error
                facts[kind] = {"images": of.images, "ledger": of.ledger.tolist()}
            return table, facts

        table, facts = self._once("relevance", key, make)
        return {
            kind: Relevance(
                table[f"omega_{kind}"].to_numpy(float),
                table[f"error_{kind}"].to_numpy(float),
                fact["images"],
                np.asarray(fact["ledger"], np.float64).reshape(-1, len(COLUMNS)),
            )
            for kind, fact in facts.items()
        }

    def evaluate(self, images: Images, cue: Cue | None, channels: Tensor, sample: Ints) -> Outputs:
        """See `Passes.evaluate`."""
        what = {"cue": _named(cue), "channels": channels.tolist(), "sample": sample.tolist()}
        key = self._key("evaluate", images, **what)
        names = [f"response {i}" for i in channels.tolist()]

        def make() -> tuple[pd.DataFrame, dict[str, Any]]:
            found = self._needed(f"images {key['cue']}").evaluate(images, cue, channels, sample)
            table = _rows(images).assign(logit=found.logits)
            if found.responses is not None:
                responses = pd.DataFrame(found.responses, columns=names, index=table.index)
                table = pd.concat([table, responses], axis=1)
            if found.sample is not None:
                column = pd.Series([None] * len(table), dtype=object)
                column[sample] = pd.Series(list(found.sample), index=sample)
                table[_SAMPLE] = column
            layers = self.channels.table().astype(str).agg(" #".join, axis=1)
            return table, {
                name: layers[i] for name, i in zip(names, channels.tolist(), strict=True)
            }

        table, _ = self._once(f"evaluate-{_short(cue)}", key, make)
        return Outputs(
            table["logit"].to_numpy(float),
            table[names].to_numpy(float) if names else None,
            np.stack(list(table[_SAMPLE].iloc[sample])) if len(sample) else None,
        )

    def evaluate_dropped(
        self, images: Images, choices: Mapping[str, Tensor], instead: Tensor | Images | None
    ) -> dict[str, Floats]:
        """See `Passes.evaluate_dropped`."""
        other = instead if instead is None else digest(
            instead.tolist() if isinstance(instead, Tensor) else identity(instead)
        )  # fmt: skip
        chosen = {name: digest(sorted(flat.tolist())) for name, flat in choices.items()}
        key = self._key("dropped", images, choices=chosen, instead=other)

        def make() -> tuple[pd.DataFrame, dict[str, Any]]:
            passes = self._needed("dropped channels")
            found = passes.evaluate_dropped(images, choices, instead)
            dropped = {name: sorted(flat.tolist()) for name, flat in choices.items()}
            return pd.concat([_rows(images), pd.DataFrame(found)], axis=1), dropped

        table, _ = self._once("dropped", key, make)
        return {name: table[name].to_numpy(float) for name in choices}

    def activity(self, images: Images) -> Activity:
        """See `Passes.activity`."""

        def make() -> tuple[pd.DataFrame, dict[str, Any]]:
            found = asdict(self._needed("activity").activity(images))
            return pd.concat([self.channels.table(), pd.DataFrame(found)], axis=1), {}

        table, _ = self._once("activity", self._key("activity", images), make)
        names = Activity.__dataclass_fields__
        return Activity(**{name: table[name].to_numpy(float) for name in names})

    def _key(self, kind: str, images: Images, **what: object) -> dict[str, object]:
        """All that the numbers of a pass depend on."""
        return {"pass": kind, "detector": self.detector_digest, **identity(images), **what}

    def _needed(self, what: str) -> Passes:
        if self.passes is None:
            raise ValueError(
                f"{self.folder}: holds no such pass ({what}); run analyze.py with ckpt=... and "
                "the same passes=... to add it"
            )
        return self.passes

    def _once(
        self,
        name: str,
        key: dict[str, object],
        make: Callable[[], tuple[pd.DataFrame, dict[str, Any]]],
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The table and facts of a pass: read, or made and written."""
        with fail_together():  # a damaged file may be seen by one of them alone
            path = fitting(self.folder, name, key)
        path, exists = broadcast((path, path.exists()))
        if exists:
            with fail_together():
                table, kept = read(path)
            if not covers(kept.get("key"), key):
                raise ValueError(
                    f"{path}: holds another pass than its name says; delete it and run again"
                )
            return table, kept["facts"]
        table, facts = make()
        with fail_together():
            if get_rank() == 0:
                write(path, table, {"key": key, "facts": facts})
        return table, facts


def _rows(images: Images) -> pd.DataFrame:
    return images.manifest[["path", "generator", "label"]].reset_index(drop=True)


def _named(cue: Cue | None) -> str:
    if " at 0x" in repr(cue):  # a place in memory: the next run may have something else there
        raise ValueError(
            f"passes cannot be kept of {cue!r}, which does not tell its options; make it a frozen "
            "dataclass, as those in tff.ablations"
        )
    return "as they are" if cue is None else f"without {cue!r}"


def _short(cue: Cue | None) -> str:
    return "plain" if cue is None else type(cue).__name__.lower()
