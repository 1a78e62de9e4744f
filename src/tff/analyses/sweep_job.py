"""One training of a sweep: how it ended and what its report says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from tff.analyses.runs_of import FAILED, FINISHED
from tff.analyses.sweep_report import measured

#: In words, for the table. Only trainings that finished and were analysed are compared.
DONE, NOT_ANALYSED, FAILURE, UNFINISHED, DAMAGED = (
    "finished", "trained, not analysed", "failed", "unfinished", "damaged",
)  # fmt: skip


def job(run: Path) -> dict[str, object]:
    """Columns of one training: state, error, objective, validation metrics, seconds, measures.

    A file that cannot be read makes the state `damaged` and the reason its error: one broken job
    must not hide the others.
    """
    best = run / "checkpoints" / "best.ckpt"
    row: dict[str, object] = {"checkpoint": str(best) if best.is_file() else ""}
    try:
        row = {**_ending(run), **row}
        found = measured(run / "report")
    except (ValueError, OSError) as error:
        return {**row, "state": DAMAGED, "error": _first_line(error)}
    if row["state"] == DONE and not {"seen_ap", "unseen_ap"} & set(found):
        row["state"] = NOT_ANALYSED
    return {**row, **found}


def _ending(run: Path) -> dict[str, object]:
    finished, failed = run / FINISHED, run / FAILED
    if finished.is_file() and failed.is_file():
        # Started again in the same folder: what was written last is how it ended.
        again = finished.stat().st_mtime > failed.stat().st_mtime
        finished, failed = (finished, run / "") if again else (run / "", failed)
    if failed.is_file():
        told = _json(failed)
        kind, error = told.get("type"), _first_line(told.get("error") or "no reason was told")
        return {
            "state": FAILURE,
            "error": f"{kind}: {error}" if kind and not error.startswith(str(kind)) else error,
            "seconds": _number(told.get("seconds")),
        }
    if not finished.is_file():
        return {"state": UNFINISHED, "error": "", **_last_metrics(run)}
    told = _json(finished)
    metrics = told.get("metrics")
    metrics = metrics if isinstance(metrics, dict) else {}
    return {
        "state": DONE,
        "error": "",
        "objective": _number(told.get("objective")),
        "seconds": _number(told.get("seconds")),
        **{str(k): _number(v) for k, v in metrics.items() if str(k).startswith("val/")},
    }


def _last_metrics(run: Path) -> dict[str, object]:
    """Validation metrics of a training that is under way, from its log; none without one."""
    path = run / "logs" / "train" / "metrics.csv"
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):  # being written just now, maybe
        return {}
    known = {str(c): table[c].dropna() for c in table if str(c).startswith("val/")}
    return {name: _number(values.iloc[-1]) for name, values in known.items() if len(values)}


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    if not isinstance(told, dict):
        raise ValueError(f"{path}: expected an object with names, found {type(told).__name__}")
    return told


def _number(value: object) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else math.nan  # type: ignore[arg-type]


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
