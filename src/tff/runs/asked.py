"""What a folder that was used before has to do with what is asked now. Starts in an instant."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from tff.comparisons.runs import part
from tff.errors import readable_errors
from tff.runs.lock import busy, running
from tff.runs.outcome import finished
from tff.runs.ranks import first


class Guard(Callback):
    """Looks at the folder of a run before Hydra writes the options of this one there.

    They would replace those of a run that goes on or is finished. Jobs of a sweep are passed over:
    the same folder means the same options, and `main` looks again.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """End with a sentence where the run would be refused.

        Raises:
            SystemExit: after the sentence.
        """
        folder = Path(config.hydra.run.dir)
        with readable_errors():
            if first() and running(folder):
                raise ValueError(busy(folder))
            if first() and config.resume:
                require_same(folder, config.hydra.overrides.task)


def answer(cfg: DictConfig) -> dict[str, Any] | None:
    """What a finished run has left, as `finished`; None where something is still to be done.

    That may be the analysis alone: the training then goes on at its end, and does no step.

    Raises:
        ValueError: the run was finished with other options, or cannot be gone on with.
    """
    out, now = Path(cfg.out), list(HydraConfig.get().overrides.task)
    if (done := finished(out)) is None:
        return None
    require_same(out, now)
    best, last = (out / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    if not wanted(cfg.analyze) or not best.is_file():
        return done
    same = _of_analysis(done.get("overrides") or ()) == _of_analysis(now)
    if same and (out / "report" / "summary.json").is_file():
        return done
    if not last.is_file():  # it would train on from the best one
        raise ValueError(
            f"{out}: is finished but for the analysis, and {last.name} is gone; analyse it with "
            f"python analyze.py ckpt={best} hydra.run.dir={out}"
        )
    return None


def wanted(analyze: bool | str) -> bool:
    """Whether a training is to be followed by an analysis.

    Args:
        analyze: `auto`: in a sweep, whose page needs it.

    Raises:
        ValueError: it is neither that nor a yes or no.
    """
    if analyze not in (True, False, "auto"):
        raise ValueError(f"analyze={analyze}: expected true, false or auto")
    return HydraConfig.get().mode == RunMode.MULTIRUN if analyze == "auto" else bool(analyze)


def require_same(folder: Path, options: Iterable[str]) -> None:
    """Refuse a folder that was finished with other options: it answers for its own only.

    Args:
        folder: of a run, finished or not.
        options: of the command line or the job; what is no part of a run may differ.

    Raises:
        ValueError: with the options that differ.
    """
    then = (finished(folder) or {}).get("overrides")
    if not isinstance(then, list):
        return
    old, new = _values(then), _values(options)
    differ = [key for key in {**new, **old} if new.get(key) != old.get(key)]
    if differ:
        told = "; ".join(
            f"{key}: {old.get(key, 'not given')} then, {new.get(key, 'not given')} now"
            for key in differ[:5]
        )
        raise ValueError(
            f"{folder}: was finished with other options ({told}). Train in another folder "
            "(hydra.run.dir=DIR), or without resume= to begin this one anew"
        )


def _values(options: Iterable[object]) -> dict[str, str]:
    """Option -> value, of what is part of a run; the last one of an option given twice."""
    split = (str(option).partition("=") for option in options if part(str(option)))
    return {key: value for key, _, value in split}


def _of_analysis(options: Iterable[object]) -> str:
    typed = [str(option) for option in options]
    return next((o for o in reversed(typed) if o.startswith("analyze_options=")), "")
