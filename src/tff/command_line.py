"""The command line as people use it: paths as they write them, errors as they can read them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from rich.console import Console
from rich.text import Text

from tff.causes import itself, only_gone
from tff.faults import sentence

# Our launchers have the names of the plugins' own. Hydra 1.3 then checks the types of their options
# by those, which is meant, and warns that later versions will not.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against")

PATHS = (
    "ckpt",
    "out",
    "passes",
    "hydra.run.dir",
    "data.root",
    "data.photos",
    "data.cache",
    "discovery.root",
    "run",
    "runs",
    "detector.pretrained",
)


#: A group is chosen with a slash, its values with a dot; both are typed for the choice.
GROUPS = {"report.protocol": "report/protocol"}


def quoted(arguments: Iterable[str], keys: tuple[str, ...] = PATHS) -> list[str]:
    """Quote the values of path options, so that Hydra takes `=`, `(`, `,`, spaces... literally.

    `ckpt=runs/epoch=3 (best).ckpt` then means that file, and `~` the home folder. Values that are
    quoted or escaped already, lists (`[a,b]`), refer to others with `${...}`, or (with `-m`) list
    several with commas, stay as they are.
    """
    arguments = list(arguments)
    sweep = bool({"-m", "--multirun"} & set(arguments))
    return [_quoted(argument, keys, sweep) for argument in arguments]


def _quoted(argument: str, keys: tuple[str, ...], sweep: bool) -> str:
    key, equals, value = argument.partition("=")
    if key in GROUPS:
        return f"{GROUPS[key]}={value}"
    plain = key.lstrip("+") in keys and equals and value not in ("", "null", "true", "false")
    special = value[:1] in ("'", '"') or "${" in value or "\\=" in value or (sweep and "," in value)
    if not plain or special or (value[0] == "[" and value[-1] == "]"):
        return argument
    escaped = os.path.expanduser(value).replace('"', '\\"')
    return f'{key}="{escaped}"'


MENDABLE = (
    ValueError,
    OSError,
    NotImplementedError,
    InstantiationException,
    MissingMandatoryValue,
)


class JobError(CompactHydraException):
    """A job of a sweep has failed, which was told; the others go on."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """End with one plain sentence where the user can mend it; HYDRA_FULL_ERROR=1 shows all."""
    try:
        yield
    except Exception as error:
        text = _told(error)
        if text is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        from tff.tables import visible  # only here, since it takes a second

        text = visible(text, lines=True)  # names of files may hold what a terminal obeys
        console = Console(stderr=True)
        console.print(Text(f"Error: {text}", style="bold red"), soft_wrap=True)
        console.print("(HYDRA_FULL_ERROR=1 shows where it came from.)", style="dim")
        raise ended(text) from None


def ended(reason: str) -> JobError | SystemExit:
    """What to raise when the user has been told why nothing more is done."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        # SystemExit would end the jobs that are still to run. Hydra ends with this at last.
        return JobError(reason)
    return SystemExit(1)


def _told(error: Exception) -> str | None:
    """One sentence; None for an error that is not the user's to mend."""
    cause = itself(error)
    if only_gone(cause):
        # `tff.runs.outcome.fail` notes what the other process has left word of.
        if reason := "; ".join(getattr(error, "__notes__", ())):
            return f"another process failed: {reason}"
        return "another process failed, was killed or is out of reach; what it printed tells why"
    # In a test, and before the first job of a sweep, there is no folder yet.
    hydra = HydraConfig.instance().cfg
    folder = OmegaConf.select(hydra, "hydra.runtime.output_dir") if hydra else None  # type: ignore[arg-type]
    if fault := sentence(cause, folder):
        return fault
    if isinstance(cause, MissingMandatoryValue) and cause.full_key:
        return f"{cause.full_key} is needed: pass {cause.full_key}=..."
    mendable = isinstance(error, MENDABLE) or isinstance(cause, MENDABLE)
    return str(cause).strip() if mendable else None
