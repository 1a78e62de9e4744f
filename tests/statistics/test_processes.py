"""Two and three processes against one: the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from tff.distributed import get_rank, get_world_size
from tff.statistics.detection import AveragePrecision
from tff.statistics.ffrs import FFRS
from tff.statistics.per_image import PerImage

ROWS, CHANNELS = 13, 7


def results(mine: list[int]) -> dict[str, Any]:
    generator = torch.manual_seed(0)
    shares = torch.randn(ROWS, CHANNELS, generator=generator).softmax(1)
    labels = torch.arange(ROWS) % 2
    logits = (30 * torch.randn(ROWS, generator=generator) + 10 * labels).round()
    ffrs, rows, ap = FFRS(CHANNELS), PerImage(width=2), AveragePrecision()
    for part in torch.tensor(mine, dtype=torch.int64).split(3) if mine else []:
        ffrs.update(shares[part])
        rows.update(part, torch.stack([logits[part], shares[part, 0]], dim=1))
        ap.update(logits[part], labels[part])
    return {
        "ffrs": ffrs.compute(),
        "report": ffrs.summary(),
        "rows": rows.compute(),
        "ap": ap.compute(),
    }


def dealt(rank: int, world: int) -> list[int]:
    """Backwards and unevenly; the last of three processes gets no row."""
    return list(range(ROWS))[::-1][rank :: min(world, 2)] if rank < 2 else []


def worker(rank: int, folder: str) -> None:
    """First two of the processes meet, then all three."""
    torch.set_num_threads(1)
    for world in (2, 3):
        if rank >= world:
            continue
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world
        )
        try:
            assert (get_rank(), get_world_size()) == (rank, world)
            torch.save(results(dealt(rank, world)), f"{folder}/{rank}of{world}.pt")
        finally:
            distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, (str(folder),), nprocs=3)  # once: each process imports torch
    return folder


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    assert (get_rank(), get_world_size()) == (0, 1)
    return results(list(range(ROWS)))


@pytest.mark.parametrize(("rank", "world"), [(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)])
def test_same_bits(rank, world, folder, alone):
    found = torch.load(folder / f"{rank}of{world}.pt", weights_only=True)
    for name in ("ffrs", "rows", "ap"):
        assert torch.equal(found[name], alone[name]), name
    omega, error, images = found["report"]
    assert images == ROWS
    assert torch.equal(omega, alone["report"][0])
    # Sums of squares need more bits than float64 has, so here the order may count.
    torch.testing.assert_close(error, alone["report"][1], rtol=1e-12, atol=0)


def test_all_rows_are_there(alone):
    assert alone["rows"].shape == (ROWS, 2)
    assert sorted(dealt(0, 2) + dealt(1, 2)) == list(range(ROWS))
    assert len(dealt(0, 2)) != len(dealt(1, 2))
    assert dealt(2, 3) == []
