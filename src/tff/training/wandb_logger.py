"""A logger for Weights & Biases that never asks, never waits long and never ends a training."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from os import environ
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from tff.report.wandb import end, forgiven, send, version
from tff.training.wandb_config import concealed
from tff.training.wandb_mode import forget_dead_service, mode
from tff.training.wandb_record import RunRecord

log = logging.getLogger(__name__)


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
        self._job, self._training, self._config = job, training, concealed(config or {})
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
        self._wandb_init |= {"mode": mode(), "settings": settings}
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
        with forgiven("logging, which now ends for good,"):
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
            from tff.training.restore import fingerprint  # brings all networks with it

            name = fingerprint(str(self._best))
            metadata = {"checkpoint": name, **self._score}
            aliases = ["best", version(name)]
            send(self, "checkpoint", {"best.ckpt": self._best}, metadata, aliases, self._limit)
        end(run, self._exit)
        self._experiment = None
