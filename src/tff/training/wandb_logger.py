"""The logger for Weights & Biases: one run for a training, its restarts and its analyses."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from tff.atomic import write_json
from tff.detectors.safe_load import read
from tff.foreign_files import read_json
from tff.options import PATH, checked, number, one_of
from tff.report.wandb import finish_run, is_reachable, log_artifact, tolerate_errors
from tff.strict_json import to_json

log = logging.getLogger(__name__)
#: File in the folder of a training: `id`, `project`, `entity` and `group` of its run.
RECORD = "wandb-run.json"
_PLAIN = re.compile(r"(?!\.+$)[^\x00-\x1f/\\:?#%]*")
MODES = ("online", "offline", "disabled", "shared", "run", "dryrun")


class WeightsAndBiases(WandbLogger):
    """Lightning's logger, for a run that a training shares with its restarts and its analyses.

    A training continues the run that its folder names in `wandb-run.json`, an analysis the run of
    the training that wrote its checkpoint. An analysis of several checkpoints, or of one whose
    training was not logged, gets a run of its own, of job type "analysis".

    The run starts with the first logged value, on rank zero only: before, and on other ranks, there
    is no file, no network and no import of `wandb`. Without an account, or where the server does
    not answer, the run is offline. An error of the service ends the logging, not the training.

    Args:
        project: of a new run; a continued run stays in its own.
        save_dir: output folder of the job; files go to SAVE_DIR/wandb.
        tags: of a training or a new run.
        group: name that runs share; None: that of the sweep, if there is one; "": none.
        entity: user or team; None: the default of the account.
        name: of a new run in the list of runs; None: chosen by Weights & Biases.
        job: "train" for a training, else an analysis; the configuration is logged under this name.
        ckpt: checkpoint of an analysis, or several.
        join: False starts a new run in any case.
        config: configuration of the job, logged with its secrets hidden.
        checkpoint: log the best checkpoint at the end of a training.
        upload_limit: bytes; for a larger checkpoint only path and checksum are logged.
        init_timeout: seconds to wait for the server at the start.
        finish_timeout: seconds to wait for uploads at the end; the rest stays in the folder.

    Raises:
        ValueError: `wandb-run.json` is damaged, or WANDB_MODE is unknown.
    """

    @checked("logger.wandb")
    def __init__(
        self,
        project: str,
        save_dir: Annotated[str | Path, PATH],
        tags: Sequence[str],
        group: str | None,
        *,
        entity: str | None = None,
        name: str | None = None,
        job: str = "train",
        ckpt: str | Sequence[str] | None = None,
        join: bool = True,
        config: Mapping[str, Any] | None = None,
        checkpoint: bool = True,
        upload_limit: Annotated[float, number(0)] = 1e9,
        init_timeout: Annotated[float, number(0)] = 20,
        finish_timeout: Annotated[float, number(0)] = 120,
    ) -> None:
        one_of(MODES).require("WANDB_MODE", os.environ.get("WANDB_MODE", "").strip() or "online")
        self._folder, self._training, self._job = Path(save_dir), job == "train", job
        ckpts = [ckpt] if isinstance(ckpt, str) else list(ckpt or ())
        folders = [self._folder]
        self._step: int | None = None  # of values that are logged without one
        if ckpts and not self._training:
            folders = list(Path(ckpts[0]).expanduser().resolve().parents)[:3]
            self._step = read_step(ckpts[0]) if len(ckpts) == 1 else None
        record: dict[str, str | None] = {}
        if join and (self._training or len(ckpts) <= 1):
            record = next(filter(None, map(read_record, folders)), {})
        if group is None:
            group = record["group"] if record else get_sweep_name()
        run: dict[str, Any] = {"project": project, "entity": entity, "name": name}
        run |= record | {"group": group or None}
        if self._training or not record:  # an analysis would replace those of the training
            run |= {"tags": list(tags), "job_type": "train" if self._training else "analysis"}
        super().__init__(save_dir=save_dir, **run)
        del self._wandb_init["anonymous"]  # no longer an option; `wandb` warns of it
        self._config, self._timeouts = hide_secrets(config or {}), (init_timeout, finish_timeout)
        self._log_best, self._upload_limit = self._training and checkpoint, upload_limit
        self._best, self._score = self._folder / "checkpoints" / "best.ckpt", dict[str, object]()
        self._failed, self._exit_code = False, 0

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, started on first use."""
        if self._experiment is None and getattr(self, "_attach_id", None) is None:
            self._start()
        return super().experiment

    def _start(self) -> None:
        import wandb  # takes seconds, and few runs need it

        self._folder.mkdir(parents=True, exist_ok=True)  # else wandb takes a temporary folder
        # Silent: no links, hints and summaries of wandb in the terminal.
        settings = wandb.Settings(silent=True, finish_timeout_raises=True)
        settings.init_timeout, settings.finish_timeout = self._timeouts
        options = self._wandb_init
        options["settings"] = settings
        refused = ignore_unusable_variables()
        options["id"] = options["id"] or os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
        try:
            options["mode"] = "offline" if refused else choose_mode()
            run: Any = super().experiment
        except Exception as error:  # those of the network and the service have no common class
            log.warning("Weights & Biases: %s The run is kept offline.", error)
            wandb.teardown()  # its service still holds the id of the run that could not start
            os.environ.pop("WANDB_SERVICE", None)  # may be that of a process that has ended
            options["mode"] = "offline"
            run = super().experiment
        if run.disabled:
            return
        if not run.offline:
            log.info("Weights & Biases: %s", run.url)
        if self._config:
            run.config.update({self._job: self._config}, allow_val_change=True)
        if self._training:
            # Offline, the entity is that of an earlier start.
            record = {key: options.get(key) for key in ("id", "project", "entity", "group")}
            record["entity"] = run.entity or record["entity"]
            if record != read_record(self._folder):
                write_json(self._folder / RECORD, record)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._attempt(super().log_metrics, metrics, self._step if step is None else step)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self._attempt(super().log_hyperparams, params)

    def _attempt(self, call: Callable[..., None], *arguments: object) -> None:
        """Call, unless a call has failed before: each would wait for the service again."""
        if not self._failed:
            self._failed = True
            with tolerate_errors("logging stops, since it"):
                call(*arguments)
                self._failed = False

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        monitor, score = checkpoint_callback.monitor, checkpoint_callback.best_model_score
        if monitor and checkpoint_callback.best_model_path:
            self._best = Path(checkpoint_callback.best_model_path)
            self._score = {} if score is None else {monitor: float(score)}

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self._exit_code = int(status != "success")  # the run continues until `finish`

    @rank_zero_only
    def finish(self) -> None:
        """Log the best checkpoint of a training and finish the run, if it was started."""
        if self._experiment is None:
            return
        run: Any = self._experiment
        if self._log_best and self._best.is_file() and not (run.disabled or self._failed):
            from tff.training.from_checkpoint import fingerprint  # imports all detectors

            checkpoint = fingerprint(str(self._best))
            metadata = {"checkpoint": checkpoint, **self._score}
            aliases = ["best", checkpoint.rpartition(":")[2]]
            files = {"best.ckpt": self._best}
            log_artifact(self, "checkpoint", files, metadata, aliases, self._upload_limit)
        finish_run(run, self._exit_code)
        self._experiment = None


def finish_loggers(loggers: Iterable[Logger]) -> None:
    """Finish runs at Weights & Biases; else the next job of a sweep would log into them."""
    for logger in loggers:
        if isinstance(logger, WeightsAndBiases):
            logger.finish()


def ignore_unusable_variables() -> list[str]:
    """Names of WANDB_ variables that hold a value `wandb` refuses, each warned of and unset.

    A variable that holds nothing is unset without a word, as a shell's user means it; `wandb` would
    refuse most of those too.
    """
    import wandb  # takes seconds, and few runs need it

    refused = []
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        try:
            if os.environ[name].strip():
                wandb.Settings().update_from_env_vars({name: os.environ[name]})
                continue
        except (ValueError, wandb.errors.Error) as error:
            # Of pydantic's four lines, the reason.
            reason = str(error).partition(" [type=")[0].split("\n")[-1].strip()
            log.warning("%s is ignored (%s); the run is kept offline.", name, reason)
            refused.append(name)
        del os.environ[name]
    return refused


def choose_mode() -> str:
    """Mode for `wandb.init`, chosen without a prompt and within seconds.

    WANDB_MODE decides, then whether there is an account. Where the account is missing or its server
    does not answer, the mode is "offline" in any case.
    """
    requested = os.environ.get("WANDB_MODE", "")
    if requested in ("offline", "dryrun", "disabled"):
        return requested
    import wandb  # takes seconds, and few runs need it

    server = wandb.setup().settings.base_url
    if not _has_account(server):
        if requested:
            log.warning("WANDB_MODE=%s, but there is no account: run is kept offline.", requested)
        return "offline"
    if not is_reachable(server):
        log.warning("Weights & Biases: %s does not answer; the run is kept offline.", server)
        return "offline"
    return requested or "online"


def _has_account(server: str) -> bool:
    """Whether `wandb login` was run for a server, or a key or token is set."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        logins = netrc(os.environ.get("NETRC") or None)
    except (OSError, NetrcParseError):
        return False
    return logins.authenticators(urlsplit(server).hostname or "") is not None


def read_record(folder: Path) -> dict[str, str | None]:
    """Id, project, entity and group of the run that a folder names; empty without `wandb-run.json`.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        found = read_json(path)
        record = {key: found.get(key) for key in ("id", "project", "entity", "group")}
        # The service makes file names and addresses of them.
        valid = all(_PLAIN.fullmatch(text) for text in record.values() if text is not None)
        if valid and record["project"] and re.fullmatch(r"\w[\w.-]*", record["id"] or ""):
            return record
        reason: object = "it needs an id and a project, and names without / \\ : ? # %"
    except (OSError, ValueError, AttributeError, TypeError) as error:
        reason = error
    raise ValueError(
        f"{path}: does not name a run at Weights & Biases ({reason}); restore it, or delete it to "
        "start a new run"
    )


def read_step(ckpt: str) -> int | None:
    """Training step of a checkpoint; None where it is unknown, or the file is not readable."""
    try:
        return int(read(ckpt, mapped=True)["global_step"])
    except Exception:  # other formats, pickled code: who loads the weights reports it
        return None


def get_sweep_name() -> str | None:
    """Name of the folder of the running sweep (`-m`); None outside of one."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


HIDDEN = "(hidden)"
_SECRET = re.compile(r"(^|_)(key|token|secret|password|passwd|credentials?)s?$", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")  # https://user:password@host
_SHORTEST = 6  # characters; a shorter secret occurs by chance in other texts


def hide_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration in plain containers, its secrets replaced by "(hidden)".

    Secrets are values of options whose name ends with key, token, secret, password or credentials,
    values of environment variables of such names wherever they appear, and logins in addresses.
    """
    values = [v for k, v in os.environ.items() if _SECRET.search(k) and len(v) >= _SHORTEST]
    values.sort(key=len, reverse=True)  # one may contain another

    def hide(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                hide(key): HIDDEN if isinstance(item, str) and item and _SECRET.search(key)
                else hide(item)
                for key, item in value.items()
            }  # fmt: skip
        if isinstance(value, list):
            return [hide(item) for item in value]
        if isinstance(value, str):
            for secret in values:
                value = value.replace(secret, HIDDEN)
            return _LOGIN.sub(f"{HIDDEN}@", value)
        return value

    hidden: dict[str, Any] = hide(to_json(config))
    return hidden
