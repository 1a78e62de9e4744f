"""Folders of a sweep's jobs, named by their options: the same options are the same job."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from omegaconf import OmegaConf

from tff.comparisons.runs import part

LONGEST = 120
_PLAIN = re.compile(r"[A-Za-z][\w.]*=[\w.-]+", re.A)


def job_folder(options: Iterable[str]) -> str:
    """Name of the folder of a job with these options, without those that are no part of it."""
    return folder_name(",".join(sorted(option for option in options if part(option))))


def folder_name(overrides: str) -> str:
    """`detector=resnet18,seed=1` -> `detector-resnet18+seed-1`.

    Letters, digits and `._+-` only; at most 120 characters. Where that is not enough, names and
    values of options are cut short, and a digest keeps different options apart.

    Args:
        overrides: sorted, with commas between.
    """
    if not overrides:
        return "defaults"
    items = overrides.split(",")
    name = _joined(items)
    if all(_PLAIN.fullmatch(item) for item in items) and len(name) <= LONGEST:
        return name
    if len(name) > LONGEST - 13:  # what differs should still be seen
        name = _joined([_short(item) for item in items])[: LONGEST - 13]
    digest = hashlib.sha256(overrides.encode()).hexdigest()[:12]
    return f"{name.strip('-.') or 'options'}-{digest}"


def _joined(items: list[str]) -> str:
    return re.sub(
        r"[^\w.+-]+", "-", "+".join(item.replace("=", "-", 1) for item in items), flags=re.A
    )


def _short(item: str) -> str:
    """`module.optimizer.lr=0.001` -> `lr=0.001`; of a long value, such as a path, the end."""
    key, _, value = item.partition("=")
    return f"{key.rpartition('.')[2]}={value[-16:]}"


# A launcher that starts processes sends them the settings unresolved; train.py names this module,
# so it is there before they are needed.
OmegaConf.register_new_resolver("tff.folder", job_folder, replace=True)
