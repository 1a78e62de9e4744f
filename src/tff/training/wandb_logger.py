"""The logger for Weights & Biases: one run for a training, its restarts and its analyses."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from netrc import NetrcParseError, netrc
from os import environ
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from tff.atomic import write_json
from tff.report.results import to_json
from tff.report.wandb import digest_alias, finish_run, is_reachable, log_artifact, tolerate_errors

log = logging.getLogger(__name__)

#: Where `wandb` keeps the address of its service.
SERVICE = "WANDB_SERVICE"
# The older names, and those of today.
MODES = {
    "": "online",
    "run": "online",
    "online": "online",
    "shared": "shared",
    "dryrun": "offline",
    "offline": "offline",
    "disabled": "disabled",
}


def choose_mode() -> str:
    """The mode for `wandb.init`, found without asking anybody and within seconds.

    WANDB_MODE decides; without it a configured account means online, and none means offline. Where
    an account is missing or its server does not answer, a run is kept offline whatever was said.

    Raises:
        ValueError: WANDB_MODE is none of its words.
    """
    said = os.environ.get("WANDB_MODE", "")
    if said not in MODES:
        raise ValueError(f"WANDB_MODE={said}: set it to online, offline or disabled, or unset it")
    if MODES[said] in ("offline", "disabled"):
        return MODES[said]
    import wandb  # takes seconds, and only those who ask for it need it

    server = wandb.setup().settings.base_url
    if not _account(server):
        if said:
            log.warning("WANDB_MODE=%s, but there is no account: the run is kept offline.", said)
        return "offline"
    # Before wandb looks whether the key is right, for which it waits much longer.
    if not is_reachable(server):
        log.warning("Weights & Biases: %s does not answer; the run is kept offline.", server)
        return "offline"
    return MODES[said]


def forget_dead_service() -> None:
    """Forget the service of a process that has ended, which `wandb` would fail to reach.

    A process that logs leaves its address to all that it starts.
    """
    if SERVICE not in os.environ:
        return
    import wandb

    try:
        wandb.setup()
    except Exception as error:  # the class is private, and so is that of a broken address
        log.warning("Weights & Biases: %s; another service is started.", error)
        os.environ.pop(SERVICE, None)


def _account(server: str) -> bool:
    """Whether `wandb login` was run for a server, or a key or token is set."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        known = netrc(os.environ.get("NETRC") or None)
    except (OSError, NetrcParseError):
        return False
    return known.authenticators(urlsplit(server).hostname or "") is not None


_SECRET = re.compile(r"(^|_)(key|token|secret|password|passwd|credentials?)s?$", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")  # https://user:password@host
_SHORTEST = 6  # a shorter value of a variable would be found in any text
HIDDEN = "(hidden)"


def hide_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in plain containers, its secrets hidden.

    Hidden are the values of options whose name ends with key, token, secret, password or
    credentials, the values of environment variables of such names wherever they appear, and what
    stands before the @ of an address.
    """
    secrets = sorted(
        (v for k, v in os.environ.items() if _SECRET.search(k) and len(v) >= _SHORTEST),
        key=len,
        reverse=True,
    )
    shown = _shown(to_json(config), secrets)
    return shown if isinstance(shown, dict) else {}


def _shown(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, dict):
        return {
            _text(key, secrets): HIDDEN
            if isinstance(item, str) and item and _SECRET.search(key)
            else _shown(item, secrets)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_shown(item, secrets) for item in value]
    return _text(value, secrets) if isinstance(value, str) else value


def _text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return _LOGIN.sub(f"{HIDDEN}@", text)


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


class WeightsAndBiases(WandbLogger):
    """One run for a training, its restarts and its analyses.

    Nothing happens before the first value is logged, and nothing at all in other processes than
    the first: no file, no network, no import of `wandb`.

    Args:
        folder: the run is kept in FOLDER/wandb; exists or is made.
        joined: the run to go on with; None begins a new one.
        step: of the training; results that come without one belong to it.
        job: what logs; its configuration is kept under this name.
        training: whether it is the training itself, which keeps the record of the run in the
            folder for others to join and logs its best checkpoint in the end.
        config: configuration of the job; secrets in it are hidden.
        checkpoint: log the best checkpoint at the end of a training.
        upload_limit: bytes; of a larger checkpoint only path and checksum are logged.
        init_timeout: seconds until a server that does not answer is given up.
        finish_timeout: seconds that the end waits for what is still to be sent; the rest stays in
            the folder.
        options: of `wandb.init`.
    """

    def __init__(
        self,
        folder: str,
        joined: RunRecord | None,
        *,
        step: int | None = None,
        job: str = "train",
        training: bool = True,
        config: Mapping[str, Any] | None = None,
        checkpoint: bool = True,
        upload_limit: float = 1e9,
        init_timeout: float = 20,
        finish_timeout: float = 120,
        **options: Any,
    ) -> None:
        if joined is not None:
            options |= {"id": joined.id, "project": joined.project, "entity": joined.entity}
        super().__init__(save_dir=folder, **options)
        self._folder, self._joined, self._step = Path(folder), joined, step
        self._job, self._training, self._config = job, training, hide_secrets(config or {})
        self._checkpoint, self._limit = training and checkpoint, upload_limit
        self._timeouts = init_timeout, finish_timeout
        self._best = self._folder / "checkpoints" / "best.ckpt"
        self._score: dict[str, object] = {}
        self._lost, self._exit = False, 0
        self._wandb_init.pop("anonymous")  # no longer an option, and warned of

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, begun on first use; a server that fails then leaves it offline."""
        if self._experiment is None and getattr(self, "_attach_id", None) is None:
            self._begin()
        return super().experiment

    def _begin(self) -> None:
        import wandb  # takes seconds, and only those who ask for it need it

        self._folder.mkdir(parents=True, exist_ok=True)  # else wandb takes a temporary folder
        # Links, hints and summaries in the terminal are not ours to show.
        settings = wandb.Settings(silent=True, finish_timeout_raises=True)
        settings.init_timeout, settings.finish_timeout = self._timeouts
        forget_dead_service()
        self._wandb_init |= {"mode": choose_mode(), "settings": settings}
        if self._wandb_init["id"] is None:
            self._wandb_init["id"] = environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        try:
            run: Any = super().experiment
        except (wandb.Error, OSError) as error:
            if self._wandb_init["mode"] in ("offline", "disabled"):
                raise
            log.warning("Weights & Biases: %s The run is kept offline.", error)
            wandb.teardown()  # its service still holds the id of the run that could not begin
            self._wandb_init["mode"] = "offline"
            run = super().experiment
        if run.disabled:
            return
        if not run.offline:
            log.info("Weights & Biases: %s", run.url)
        if self._config:
            run.config.update({self._job: self._config}, allow_val_change=True)
        if self._training:
            self._keep(run)

    def _keep(self, run: Any) -> None:
        """Offline nobody knows the entity; what an earlier attempt learned online stays."""
        group = self._wandb_init.get("group")
        entity = run.entity or self._wandb_init.get("entity")
        record = RunRecord(run.id, self._wandb_init["project"], entity or None, group or None)
        if self._joined is None or self._joined != record:
            record.write(self._folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Without a step, the values belong to the step of the checkpoint that was analysed."""
        here = self._step if step is None else step
        self._try(partial(super().log_metrics, metrics, here))

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Options of the module, as Lightning's logger takes them."""
        self._try(partial(super().log_hyperparams, params))

    def _try(self, act: Callable[[], None]) -> None:
        """Once the service has failed, it is left alone; other loggers go on."""
        if self._lost:
            return
        self._lost = True
        with tolerate_errors("logging, which now ends for good,"):
            act()
            self._lost = False

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Remember which checkpoint is the best, and why."""
        monitor, score = checkpoint_callback.monitor, checkpoint_callback.best_model_score
        if monitor and checkpoint_callback.best_model_path:
            self._best = Path(checkpoint_callback.best_model_path)
            self._score = {} if score is None else {monitor: float(score)}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Lightning says how a training ended; the run goes on until `finish`."""
        self._exit = int(status != "success")

    @rank_zero_only
    def finish(self) -> None:
        """Log the best checkpoint of a training and end the run, if one was begun.

        Waits for what is being sent, but no longer than `finish_timeout`.
        """
        if self._experiment is None:
            return
        run: Any = self._experiment
        if self._checkpoint and self._best.is_file() and not (run.disabled or self._lost):
            from tff.training.from_checkpoint import fingerprint  # brings all networks with it

            name = fingerprint(str(self._best))
            metadata = {"checkpoint": name, **self._score}
            aliases = ["best", digest_alias(name)]
            log_artifact(
                self, "checkpoint", {"best.ckpt": self._best}, metadata, aliases, self._limit
            )
        finish_run(run, self._exit)
        self._experiment = None


def make_logger(
    project: str,
    save_dir: str,
    tags: list[str],
    group: str | None,
    *,
    entity: str | None = None,
    name: str | None = None,
    job: str = "train",
    ckpt: str | Sequence[str] | None = None,
    join: bool = True,
    **options: Any,
) -> WeightsAndBiases:
    """The logger of a job, which goes on with the run that the job belongs to.

    A training goes on with the run that its folder names (`wandb-run.json`), an analysis with the
    run of the training that its checkpoint comes from. An analysis of several checkpoints, or of
    one whose training was not logged, is a run of its own, of job type "analysis".

    Args:
        project: of a new run; a run that is joined stays in its own.
        save_dir: output folder of the job.
        tags: of a training or a new run.
        group: name that runs share; None: that of the sweep, if there is one; "": none.
        entity: user or team; None: the one of the account.
        name: of a new run in the list of runs; None: chosen by Weights & Biases.
        job: "train" for a training, else an analysis.
        ckpt: of an analysis: its checkpoint, or several.
        join: False begins a new run in any case.
        options: see `WeightsAndBiases`.

    Raises:
        ValueError: `wandb-run.json` is damaged.
    """
    training = job == "train"
    several = not (ckpt is None or isinstance(ckpt, str))
    if several and len(ckpt or ()) == 1:
        (ckpt,), several = ckpt or (), False
    record = None
    if join and training:
        record = read_record(Path(save_dir))
    elif join and not several:
        record = record_of_checkpoint(str(ckpt)) if ckpt else read_record(Path(save_dir))
    if group is None:
        group = record.group if record else sweep_name()
    options |= {"group": group or None, "entity": entity, "project": project, "name": name}
    if training or record is None:  # else those of the training would be replaced
        options |= {"tags": tags, "job_type": "train" if training else "analysis"}
    step = None if training or several or not ckpt else step_of(str(ckpt))
    return WeightsAndBiases(save_dir, record, step=step, job=job, training=training, **options)


def sweep_name() -> str | None:
    """Name of the folder of the sweep (`-m`) that is running; None outside of one."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


@rank_zero_only
def finish_loggers(loggers: Iterable[Logger]) -> None:
    """End the runs at Weights & Biases, else the next job of a sweep would write into them."""
    for logger in loggers:
        if isinstance(logger, WeightsAndBiases):
            logger.finish()
        elif isinstance(logger, WandbLogger) and logger.version is not None:
            finish_run(logger.experiment)
