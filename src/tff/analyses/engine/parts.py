"""What a pass has computed so far, stored while it runs, so that an interrupted pass goes on."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor
from torchmetrics import Metric

from tff.atomic import write_atomically
from tff.detectors.safe_load import read
from tff.distributed import get_rank, get_world_size
from tff.statistics.per_image import concatenate

log = logging.getLogger(__name__)
INTERVAL = 20.0  # seconds between two writes, at least
SHARE = 0.05  # of the time that writing may take
#: File and digest of the pass that is under way; None: it has no file.
_pass: ContextVar[tuple[Path, str] | None] = ContextVar("_pass", default=None)


@contextmanager
def store_parts(path: Path, key: str) -> Iterator[None]:
    """Store what passes in this block have computed so far, beside the file of the pass.

    Args:
        path: file in which the pass will be stored.
        key: digest of everything that its numbers depend on.
    """
    token = _pass.set((path, key))
    try:
        yield
    finally:
        _pass.reset(token)


def remove_parts(path: Path) -> None:
    """Remove the parts of a pass, which is complete."""
    for part in path.parent.glob(f"{path.name}.*.partial"):
        part.unlink(missing_ok=True)


class Parts:
    """The statistics of a pass after its first batches, in memory and in a file of this process.

    A context around the pass, within `store_parts`. Statistics do not depend on the order of their
    batches, so a pass that goes on gives the same numbers to the last bit.

    Args:
        statistics: of the pass, empty.
        name: of the pass, for messages.
        batches: number of batches of this process.
        batch_size: images in a batch.

    Attributes:
        done: number of batches that the statistics hold.
    """

    def __init__(
        self, statistics: Mapping[str, Metric], name: str, batches: int, batch_size: int
    ) -> None:
        self.statistics, self.name, self.batches, self.done = statistics, name, batches, 0
        self._path: Path | None = None
        # While a batch is being added, a signal may leave it half added.
        self._whole = True
        self._written, self._due = 0, time.monotonic() + INTERVAL
        if found := _pass.get():
            path, key = found
            process = f"{get_rank()}-of-{get_world_size()}"
            self._path = path.with_name(f"{path.name}.{process}.partial")
            self._key = f"{key} {process} {batch_size}"
            self._restore()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None and self._whole and self.done > self._written:
            self._write()

    def begin_batch(self) -> None:
        """Say that the results of a batch are about to be added to the statistics."""
        self._whole = False

    def end_batch(self) -> None:
        """Count a batch, all results of which were added; write now and then."""
        self.done += 1
        self._whole = True
        if time.monotonic() > self._due:
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        start = time.monotonic()
        states = {name: _get_state(one) for name, one in self.statistics.items()}
        try:
            with write_atomically(self._path) as part:
                torch.save({"key": self._key, "done": self.done, "states": states}, part)
        except OSError as error:  # the pass itself can do without
            log.warning("%s: not stored so far (%s)", self.name, error)
        self._written = self.done
        took = time.monotonic() - start
        self._due = time.monotonic() + max(INTERVAL, took / SHARE)

    def _restore(self) -> None:
        assert self._path is not None
        if not self._path.is_file():
            return
        try:
            found = read(self._path)
            done, states = found["done"], found["states"]
            if found["key"] != self._key or type(done) is not int or done > self.batches:
                return
            fits = {name: _fits(one, states[name]) for name, one in self.statistics.items()}
        except (ValueError, OSError, KeyError, TypeError, AttributeError, pickle.PickleError):
            return  # damaged, or of another version: it is written anew
        if not all(fits.values()) or done < 1:
            return
        for name, one in self.statistics.items():
            _set_state(one, states[name])
        self.done = self._written = done
        log.info("%s: going on after %d of %d batches", self.name, done, self.batches)


def _get_state(metric: Metric) -> dict[str, Tensor]:
    states = {name: getattr(metric, name) for name in metric._defaults}
    filled = {name: state for name, state in states.items() if len(state)}
    return {name: concatenate(state).cpu() for name, state in filled.items()}


def _fits(metric: Metric, state: Mapping[str, Tensor]) -> bool:
    """Whether a state has the names, types and shapes of a metric's own."""
    for name, default in metric._defaults.items():
        found = state.get(name)
        if isinstance(default, list) and found is None:
            continue
        if not isinstance(found, Tensor):
            return False
        if isinstance(default, Tensor) and (
            found.shape != default.shape or found.dtype != default.dtype
        ):
            return False
    return True


def _set_state(metric: Metric, state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        moved = value.to(metric.device)
        setattr(metric, name, [moved] if isinstance(metric._defaults[name], list) else moved)
