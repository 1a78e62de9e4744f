"""What a run that was kept offline holds, read back from its `.wandb` file."""

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK, _HEADER = 32 * 1024, 7  # LevelDB's log: blocks of records; ours starts with seven bytes


@dataclass
class Kept:
    """One file: a run, or a part of it since a run may be gone on with."""

    run: object = None
    config: dict = field(default_factory=dict)
    history: list = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    artifacts: list = field(default_factory=list)
    exit_code: int | None = None


def records(path: Path):
    """The protocol buffers in a file, in the order of writing."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), _HEADER, b""
    while place + _HEADER <= len(data):
        if (left := _BLOCK - place % _BLOCK) < _HEADER:
            place += left  # filled up, since no header fits
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):  # a whole one, or the last part of one
            yield Record.FromString(parts)
            parts = b""


def read(path: Path) -> Kept:
    kept = Kept()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            kept.run = record.run
            _update(kept.config, record.run.config.update)
        elif kind == "config":
            _update(kept.config, record.config.update)
        elif kind == "history":
            kept.history.append({})
            _update(kept.history[-1], record.history.item)
        elif kind == "summary":
            _update(kept.summary, record.summary.update)
        elif kind == "artifact":
            kept.artifacts.append(record.artifact)
        elif kind == "exit":
            kept.exit_code = record.exit.exit_code
    return kept


def _update(values: dict, items) -> None:
    for item in items:
        values["/".join(item.nested_key) or item.key] = json.loads(item.value_json)


def kept_in(folder: Path, patience: float = 20) -> list[Kept]:
    """All ended runs kept offline in FOLDER/wandb, the oldest first.

    `finish` returns before the last block is on the disk, so this waits for the end.
    """
    paths = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda p: p.stat().st_mtime)
    end = time.monotonic() + patience
    while True:
        found = [read(path) for path in paths]
        if all(kept.exit_code is not None for kept in found) or time.monotonic() > end:
            return found
        time.sleep(0.1)
