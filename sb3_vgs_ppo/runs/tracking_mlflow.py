"""Runs in MLflow: the store that ``MLFLOW_TRACKING_URI`` names, or ``mlflow.db`` in the working directory.

MLflow keeps every value that it was ever sent. A resumed run goes back to its last checkpoint, so that a step between
that and the kill has two values, of which the later one is that of ``progress.csv``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Metric, Param, RunTag

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.runs.tracking import DEFAULT_PROJECT, Outcome, StoreTracker, one_line

_STATES: dict[Outcome, str] = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
_PARAMS_PER_CALL = 100  # limits of MLflow's REST interface
_METRICS_PER_CALL = 1000


class MlflowTracker(StoreTracker):
    """
    One run in MLflow, through its client: the program's own active run, if it has one, is left alone.

    :param config: resolved options
    :param folder: folder of the run
    :param identity: of the run that is continued, None for a new one
    :raises UserInputError: MLflow refuses, or the store does not hold the run that is continued
    """

    name = "mlflow"
    title = "MLflow"

    def __init__(self, config: TrainConfig, folder: RunFolder, identity: Mapping[str, Any] | None) -> None:
        super().__init__(folder)
        # Not kept for resuming where the user names the store: its address may hold a password
        self._own_store = None
        if not mlflow.is_tracking_uri_set():
            default = f"sqlite:///{Path('mlflow.db').resolve()}"
            self._own_store = default if identity is None else identity["store"] or default
        self._store = self._own_store or mlflow.get_tracking_uri()
        self._unsent: list[Metric] = []
        self._step = 0
        try:
            self._client = MlflowClient(self._store)
            self._run = self._create_run(config) if identity is None else self._client.get_run(identity["run_id"])
            self._client.update_run(self._run_id, status="RUNNING")
            self._log_options(flatten(config.to_mapping()))
        except MlflowException as error:
            raise UserInputError(
                f"--track mlflow: {one_line(error)}; remedy: MLFLOW_TRACKING_URI of the store that is meant, now "
                f"{self._store}"
            ) from None

    @property
    def identity(self) -> dict[str, Any]:
        return {"run_id": self._run_id, "store": self._own_store}

    @property
    def shown_by(self) -> Sequence[str]:
        if self._store.startswith(("http:", "https:")):
            return (f"{self._store}/#/experiments/{self._run.info.experiment_id}/runs/{self._run_id}",)
        return "mlflow", "ui", "--backend-store-uri", self._store

    def send(self, values: Mapping[str, float], step: int) -> None:
        """What the store does not take is sent again with the next row: it may be locked by another run."""
        self._step = step
        now = int(time.time() * 1000)
        self._unsent += [Metric(name, value, now, step) for name, value in values.items()]
        while self._unsent:
            self._client.log_batch(self._run_id, metrics=self._unsent[:_METRICS_PER_CALL])
            del self._unsent[:_METRICS_PER_CALL]

    def end(self, outcome: Outcome, summary: Mapping[str, float]) -> None:
        self.send(summary, self._step)
        models = [self.folder.final_model] if outcome == "finished" else []
        for path in [*self.files, *models]:
            self._client.log_artifact(self._run_id, str(path))
        self._client.set_terminated(self._run_id, _STATES[outcome])

    @property
    def _run_id(self) -> str:
        return str(self._run.info.run_id)

    def _create_run(self, config: TrainConfig) -> mlflow.entities.Run:
        name = config.track_project or os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {"run_folder": str(self.folder.path.resolve())}
        return self._client.create_run(experiment, tags=tags, run_name=self.folder.path.name)

    def _log_options(self, options: Mapping[str, str]) -> None:
        """A parameter cannot be changed; one that a resumed run has changed becomes a tag."""
        known = self._run.data.params
        params = [Param(name, value) for name, value in options.items() if name not in known]
        for start in range(0, len(params), _PARAMS_PER_CALL):
            self._client.log_batch(self._run_id, params=params[start : start + _PARAMS_PER_CALL])
        changed = [(name, value) for name, value in options.items() if known.get(name, value) != value]
        self._client.log_batch(self._run_id, tags=[RunTag(f"resumed_with.{name}", value) for name, value in changed])


def flatten(options: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """:return: the options as texts by name, those of mappings as ``algo_kwargs.gamma``"""
    flat: dict[str, str] = {}
    for name, value in options.items():
        inner = flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": str(value)}
        flat.update(inner)
    return flat
