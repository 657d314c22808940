"""What a run folder holds, without running any of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sb3_vgs_ppo.checkpoint import CheckpointSummary, inspect_checkpoint
from sb3_vgs_ppo.runs.checkpointing import list_checkpoints
from sb3_vgs_ppo.runs.evaluation import Evaluation, best_evaluation, read_evaluations
from sb3_vgs_ppo.runs.folder import RunFolder, RunStatus, read_json


@dataclass(frozen=True)
class RunSummary:
    """
    :param record: content of ``config.json``
    :param status: content of ``status.json``; a run whose process is gone counts as interrupted
    :param best_evaluation: the first with the highest mean reward, None before the first
    :param newest_checkpoint: None before the first
    """

    folder: str
    record: dict[str, Any]
    status: RunStatus
    best_evaluation: Evaluation | None
    newest_checkpoint: CheckpointSummary | None

    def to_dict(self) -> dict[str, Any]:
        """:return: everything as plain values, for ``--json``"""
        best = self.best_evaluation
        newest = self.newest_checkpoint
        return {
            "folder": self.folder,
            **self.record,
            "status": asdict(self.status),
            "best_evaluation": best
            and {**asdict(best), "mean_reward": best.mean_reward, "std_reward": best.std_reward},
            "newest_checkpoint": newest and newest.to_dict(),
        }


def inspect_run(path: Path) -> RunSummary:
    """
    :param path: a run folder
    :raises RunFolderError: the folder is not that of a run
    :raises CheckpointError: its newest checkpoint is damaged
    """
    folder = RunFolder(path)
    checkpoints = list_checkpoints(folder.checkpoints)
    return RunSummary(
        folder=str(path),
        record=read_json(folder.config),
        status=folder.read_status(),
        best_evaluation=best_evaluation(read_evaluations(folder.evaluations)),
        newest_checkpoint=inspect_checkpoint(checkpoints[-1]) if checkpoints else None,
    )
