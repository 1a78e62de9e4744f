"""Which run at Weights & Biases a folder belongs to, so that others can join it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tff.atomic import write_json

NAME = "wandb-run.json"


@dataclass(frozen=True)
class RunRecord:
    """What it takes to find a run again.

    Attributes:
        id: unique in its project.
        project: where the run is.
        entity: user or team; None: the one of the account.
        group: runs of one sweep share it.
    """

    id: str
    project: str
    entity: str | None = None
    group: str | None = None

    def write(self, folder: Path) -> None:
        """Keep it in a folder, where an older record is replaced."""
        write_json(folder / NAME, asdict(self))


def read_record(folder: Path) -> RunRecord | None:
    """The record in a folder; None where there is none.

    Raises:
        ValueError: there is a file of that name, which is no record.
    """
    path = folder / NAME
    try:
        record = RunRecord(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path, error) from None
    names = (record.entity or "", record.group or "")
    if not all(isinstance(text, str) for text in (record.id, record.project, *names)):
        raise _damaged(path, "its values are no texts")
    if not record.id or not record.project:
        raise _damaged(path, "id or project is empty")
    return record


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(
        f"{path}: does not name a run at Weights & Biases ({why}); restore it, or delete it to "
        "begin a new run"
    )


def record_of_checkpoint(ckpt: str | Path) -> RunRecord | None:
    """The record of the training that a checkpoint comes from.

    Looked for beside the checkpoint and in the two folders above, the nearest first; None where
    the training was not logged there.

    Raises:
        ValueError: a record that was found is damaged.
    """
    path = Path(ckpt).expanduser().resolve()
    return next(filter(None, map(read_record, list(path.parents)[:3])), None)


def step_of(ckpt: str | Path) -> int | None:
    """The step of the training at which a checkpoint was saved; None where it does not say.

    Does not judge the file: those who read its weights do.
    """
    try:
        # Mapped, so that the weights stay on the disk.
        path = Path(ckpt).expanduser()
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # an older format, safetensors, code: torch raises nearly anything
        return None
    step = content.get("global_step") if isinstance(content, dict) else None
    return step if isinstance(step, int) else None
