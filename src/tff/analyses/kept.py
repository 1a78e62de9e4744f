"""Passes that are kept on disk: what was computed once is read the next time.

One Parquet file a pass, named by a digest of all that its numbers depend on, and that description
in the file itself; a pass that kept more than is asked for will do. A run that was killed goes on
behind its last complete pass; runs that differ in one cue share the others; tables are made again
without images and network (`replay.again`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from tff.analyses.passes import Passes
from tff.analyses.passfile import covers, digest, fitting, identity, read, write
from tff.analyses.records import Activity, Cue, Evaluation, Floats, Relevance, Rows
from tff.data.dataset import Images
from tff.distributed import agreed, place, together
from tff.relevance.conservation import COLUMNS
from tff.types import Channels

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

    def evaluate(
        self, images: Images, cue: Cue | None, channels: Tensor, sample: Rows
    ) -> Evaluation:
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
        return Evaluation(
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
        with together():  # a damaged file may be seen by one of them alone
            path = fitting(self.folder, name, key)
        path, exists = agreed((path, path.exists()))
        if exists:
            with together():
                table, kept = read(path)
            if not covers(kept.get("key"), key):
                raise ValueError(
                    f"{path}: holds another pass than its name says; delete it and run again"
                )
            return table, kept["facts"]
        table, facts = make()
        with together():
            if place()[0] == 0:
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
