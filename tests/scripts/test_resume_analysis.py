"""analyze.py killed between two passes, and started again."""

import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from tests.helpers import machine_faults

#: Whole scripts, some of them several times.
pytestmark = pytest.mark.slow

CHOSEN = "analysis=[detection,ranking,ablation,median_test]"


@pytest.fixture(scope="module")
def ckpt(trained_run):
    return trained_run / "run" / "checkpoints" / "best.ckpt"


def start(ckpt, cwd, *options):
    return machine_faults.start(
        "analyze.py", f"ckpt={ckpt}", CHOSEN, *machine_faults.ANALYZE, *options, cwd=cwd
    )


def passes(cwd):
    return [
        path
        for kind in ("relevance", "evaluate")
        for path in Path(cwd).glob(f"outputs/analyze/*/passes/*/{kind}-*.parquet")
    ]


def tables(run):
    return {p.name: pd.read_csv(p) for p in (run / "report" / "tables").glob("*.csv")}


def test_a_killed_analysis_goes_on_behind_its_last_pass(ckpt, tmp_path):
    process = start(ckpt, tmp_path)
    machine_faults.until(lambda: len(passes(tmp_path)) >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (run,) = (tmp_path / "outputs" / "analyze").iterdir()
    assert not (run / "report").exists()
    before = {path: path.stat().st_mtime_ns for path in passes(tmp_path)}

    code, text = machine_faults.ended(start(ckpt, tmp_path, "resume=auto"))
    assert code == 0, text[-4000:]
    assert list((tmp_path / "outputs" / "analyze").iterdir()) == [run]
    after = {path: path.stat().st_mtime_ns for path in passes(tmp_path)}
    assert before.items() < after.items()

    # It is finished, so that the same command now starts another one: uninterrupted.
    code, text = machine_faults.ended(start(ckpt, tmp_path, "resume=auto"))
    assert code == 0, text[-4000:]
    (whole,) = set((tmp_path / "outputs" / "analyze").iterdir()) - {run}
    assert len(passes(tmp_path)) == 2 * len(after)
    mine, theirs = tables(run), tables(whole)
    assert mine.keys() == theirs.keys() and len(mine) > 4
    for name in mine:
        pd.testing.assert_frame_equal(mine[name], theirs[name], check_exact=True)
