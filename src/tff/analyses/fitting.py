"""Each batch once, on all processes together, in pieces as large as memory allows."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

from tff.distributed import together
from tff.progress import track
from tff.types import Batch

T = TypeVar("T")
log = logging.getLogger(__name__)
#: What has no error of its own: memory of the CPU, of cuBLAS and cuDNN, and of CUDA beside torch.
_MEMORY = re.compile(
    r"allocate memory|CU(?:BLAS|DNN)_STATUS_\w*ALLOC(?:ATION)?_FAILED|CUDA error: out of memory"
)


def each(
    batches: Iterable[Batch],
    device: torch.device,
    name: str,
    look: Callable[[Batch], T],
    keep: Callable[[Batch, T], None],
) -> None:
    """Look at each batch, and keep what was found.

    Args:
        batches: of this process, uint8.
        name: of the pass, for people.
        look: at a batch on the device, in [0, 1]; it may be asked again for a part of it.
        keep: what was found, once for each image.

    Raises:
        OtherProcessError: another process failed.
    """
    with together() as check:
        fitting = Fitting(look, name)
        for batch in track(batches, name):
            check()
            image = laid_out(batch.image.to(device).float() / 255)
            for part, found in fitting(Batch(image, batch.label.to(device), batch.index)):
                keep(part, found)


def laid_out(image: Tensor) -> Tensor:
    """(B, 3, H, W) in the order of memory in which convolutions are fast."""
    return image.contiguous(memory_format=torch.channels_last)


class Fitting(Generic[T]):
    """Does something with a batch; where memory runs out, with its halves, and so on.

    Later batches are taken in the size that was found. Parts of a batch may differ from the whole
    in the last bits of a result.

    Args:
        work: on a batch; leaves nothing behind when it fails.
        name: of the work, for messages.
    """

    def __init__(self, work: Callable[[Batch], T], name: str) -> None:
        self.work, self.name = work, name
        self.size: int | None = None

    def __call__(self, batch: Batch) -> Iterator[tuple[Batch, T]]:
        """Each part of the batch with what was found in it.

        Raises:
            torch.OutOfMemoryError, MemoryError, RuntimeError: not even one image fits.
        """
        start = 0
        while start < len(batch.label):
            size = min(self.size or len(batch.label), len(batch.label) - start)
            part = Batch(*(column[start : start + size] for column in batch))
            if (found := self._tried(part)) is None:
                self._shrink(size)
                continue
            start += size
            yield part, found[0]

    def _tried(self, part: Batch) -> tuple[T] | None:
        try:
            return (self.work(part),)
        except (RuntimeError, MemoryError) as error:
            if len(part.label) == 1 or not _is_of_memory(error):
                raise
        return None  # here, since the exception would keep alive what fills the memory

    def _shrink(self, size: int) -> None:
        self.size = (size + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning(
            "%s: %d images do not fit into memory; going on with %d at a time "
            "(subject.batch_size=%d would do so from the start)",
            self.name, size, self.size, self.size,
        )  # fmt: skip


def _is_of_memory(error: Exception) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or _MEMORY.search(str(error)) is not None
