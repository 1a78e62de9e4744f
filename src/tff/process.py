"""Which of several processes this one is."""

from __future__ import annotations

from torch.distributed import get_rank, get_world_size, is_available, is_initialized


def place() -> tuple[int, int]:
    """(rank, number of processes) of the running process; (0, 1) when it is alone."""
    if is_available() and is_initialized():
        return get_rank(), get_world_size()
    return 0, 1
