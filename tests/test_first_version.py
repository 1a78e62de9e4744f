"""Checkpoints, run folders and reports of version 0.1 are read, resumed and compared as before.

`first_version/` was made with version 0.1: two trainings of a sweep (without pictures and pages),
and in `expected/` what that version itself made of them.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from tests.helpers import tiny

from tff.comparisons.emergence import Emergence
from tff.comparisons.sweep import Sweep
from tff.detectors.checkpoint import MOVED, load, origin_of
from tff.detectors.safe_load import read
from tff.safe_text import escape_formulas

ROOT = Path(__file__).parents[1]
RUNS = Path(__file__).parent / "first_version"
CHECKPOINT = RUNS / "seed0" / "checkpoints" / "last.ckpt"
EXPECTED = json.loads((RUNS / "expected" / "expected.json").read_text())
OPTIONS = [
    "detector=timm", "detector.name=test_efficientnet", "detector.pretrained=false",
    "data=folder", "data.root=images", "data.size=32", "data.batch_size=8", "data.workers=0",
    "data.cache=cache", "trainer.accelerator=cpu", "aug=none", "seed=0",
    "module.optimizer._target_=torch.optim.SGD", "module.optimizer.lr=0.1",
    "module.optimizer.fused=null", "callbacks.schedule=null", "callbacks.analyze=null",
]  # fmt: skip


def test_detector_of_an_old_checkpoint():
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = load(CHECKPOINT)(images)
    assert logits.tolist() == pytest.approx(EXPECTED["logits"], rel=1e-4)


def test_names_of_modules_are_those_of_today():
    settings = json.dumps(origin_of(read(CHECKPOINT), CHECKPOINT))
    assert "tff.detectors.timm_models.timm_model" in settings
    for old in MOVED:
        assert f'"{old}.' not in settings


def script(name, tmp_path, *options):
    command = [sys.executable, ROOT / f"{name}.py", *options]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def same_tables(folder, *names):
    for name in names:
        same_table(name, folder / "report" / "tables" / f"{name}.csv")


def same_table(name, file):
    """All columns and correlations of version 0.1 with their values; there may be more now."""
    found, expected = pd.read_csv(file), pd.read_csv(RUNS / "expected" / f"{name}.csv")
    if name == "sweep_association":
        order = ["share", "over"]
        found = found.merge(expected[order]).sort_values(order, ignore_index=True)
        expected = expected.sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(found[list(expected)], expected)


def test_comparisons_read_old_reports():
    tables = Emergence(str(RUNS / "seed0"))().tables | Sweep(str(RUNS))().tables
    assert len(tables) == 6
    for name, table in tables.items():
        same_table(name, io.StringIO(escape_formulas(table).to_csv(index=False)))


@pytest.mark.slow
def test_training_is_resumed(tmp_path):
    tiny.tree(tmp_path / "images", images=20)
    script(
        "train", tmp_path, *OPTIONS, "trainer.max_epochs=3", f"ckpt={CHECKPOINT}",
        "hydra.run.dir=out",
    )  # fmt: skip
    content, expected = read(tmp_path / "out/checkpoints/last.ckpt"), EXPECTED["resumed"]
    weights = content["state_dict"]
    assert content["global_step"] == expected["global_step"]
    found = weights[expected["tensor"]].flatten()[:8].tolist()
    assert found == pytest.approx(expected["values"], rel=1e-3)
    total = sum(float(w.double().square().sum()) for w in weights.values() if w.is_floating_point())
    assert total == pytest.approx(expected["sum_of_squares"], rel=1e-4)


@pytest.mark.slow
def test_emergence_of_an_old_run(tmp_path):
    script("analyze", tmp_path, "analysis=emergence", f"run={RUNS / 'seed0'}", "hydra.run.dir=out")
    same_tables(tmp_path / "out", "emergence", "stability", "conditional_over_time")


@pytest.mark.slow
def test_sweep_of_old_runs(tmp_path):
    script("analyze", tmp_path, "analysis=sweep", f"runs={RUNS}", "hydra.run.dir=out")
    same_tables(tmp_path / "out", "sweep", "sweep_summary", "sweep_association")
