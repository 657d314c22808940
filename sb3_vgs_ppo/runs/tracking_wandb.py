"""Runs in Weights & Biases, online or offline as ``WANDB_MODE`` says.

Its steps may only grow, and a resumed run goes back to its last checkpoint. So the x axis of all curves is one of the
logged values, and rows that were sent before a kill are sent again with later steps instead of being dropped.
"""

from __future__ import annotations

import csv
import glob
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.runs.tracking import DEFAULT_PROJECT, Outcome, StoreTracker, finite_numbers, one_line

X_AXIS = "time/total_timesteps"
_EXIT_CODES: dict[Outcome, int] = {"finished": 0, "failed": 1, "killed": 255}
"""Which its server shows as finished, failed and killed; 255 is what its own hook gives for Ctrl-C."""


class WandbTracker(StoreTracker):
    """
    One run in W&B. ``WANDB_PROJECT``, ``WANDB_NAME``, ``WANDB_DIR`` and the like mean what they always mean.

    :param config: resolved options
    :param folder: folder of the run, in which W&B keeps its local files
    :param identity: of the run that is continued, None for a new one
    :raises UserInputError: W&B refuses, e.g. because nobody is logged in
    """

    name = "wandb"
    title = "W&B"

    def __init__(self, config: TrainConfig, folder: RunFolder, identity: Mapping[str, Any] | None) -> None:
        super().__init__(folder)
        self._dir = os.environ.get("WANDB_DIR", str(folder.path))
        new = {"project": config.track_project or os.environ.get("WANDB_PROJECT", DEFAULT_PROJECT)}
        try:
            self._run = wandb.init(
                **(new if identity is None else {**identity, "resume": "allow"}),
                name=os.environ.get("WANDB_NAME", folder.path.name),
                dir=self._dir,
                reinit="create_new",  # a run that the user's own program has open is left alone
            )
        except wandb.Error as error:
            raise UserInputError(
                f"--track wandb: {one_line(error)}; remedy: wandb login, or WANDB_MODE=offline"
            ) from None
        self._run.config.update(config.to_mapping(), allow_val_change=True)
        self._run.define_metric(X_AXIS)
        self._run.define_metric("*", step_metric=X_AXIS)
        self._next_step = self._run.step
        if identity is not None:
            self._send_missing()

    @property
    def identity(self) -> dict[str, Any]:
        return {"id": self._run.id, "project": self._run.project, "entity": self._run.entity or None}

    @property
    def shown_by(self) -> Sequence[str]:
        if self._run.offline or self._run.url is None:
            return "wandb", "sync", os.path.join(self._dir, "wandb")
        return (self._run.url,)

    def send(self, values: Mapping[str, float], step: int) -> None:
        step = max(step, self._next_step)
        self._run.log(dict(values), step=step, commit=True)
        self._next_step = step + 1

    def end(self, outcome: Outcome, summary: Mapping[str, float]) -> None:
        self._run.summary.update(dict(summary))
        for path in self.files:
            copy = shutil.copy(path, self._run.dir)  # save alone would leave a link, which a moved run folder breaks
            self._run.save(glob.escape(copy), base_path=self._run.dir, policy="now")
        if outcome == "finished":
            self._run.log_model(str(self.folder.final_model), name=f"model-{self._run.id}")
        self._run.finish(exit_code=_EXIT_CODES[outcome])

    def _send_missing(self) -> None:
        """
        Send the rows that W&B does not know. It writes every 15 seconds, so that a kill takes the last rows with it;
        and an offline session knows none of those before it.
        """
        if not self.folder.progress.exists():
            return
        first = self._next_step
        with self.folder.progress.open(newline="", encoding="utf-8") as file:
            for row in map(finite_numbers, csv.DictReader(file)):
                if (step := int(row[X_AXIS])) >= first:
                    self.send(row, step)
