"""Checkpoints of a run: ``checkpoints/<step>.zip``, of which the newest few are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.runs.resume_state import RUN_STATE, ResumeState, read_resume_state


@dataclass(frozen=True)
class UsableCheckpoint:
    """
    :param path: the newest checkpoint that a run can be continued from, None before the first
    :param state: what it holds besides the model
    :param refused: newer ones that cannot be used, each with the reason
    """

    path: Path | None
    state: ResumeState | None
    refused: dict[Path, CheckpointError]

    @property
    def step(self) -> int:
        """Environment steps that were trained before."""
        return int(self.path.stem) if self.path else 0


def save_checkpoint(model: DistributionalPPO, folder: Path, keep: int, state: ResumeState) -> Path:
    """
    Save the model between an update and the next rollout, then remove all but the newest ``keep`` checkpoints.

    :param folder: folder of the checkpoints; made where it is missing
    :param state: state of the run at this moment
    :return: the new file. One for the same step is overwritten, and holds the same
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{model.num_timesteps}.zip"
    model.save(path, extra_members={RUN_STATE: state.to_bytes()})
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """:return: the checkpoints, oldest first"""
    return sorted((path for path in folder.glob("*.zip") if path.stem.isdigit()), key=lambda path: int(path.stem))


def find_usable_checkpoint(folder: RunFolder) -> UsableCheckpoint:
    """
    :param folder: a run that is to be continued; nothing in it is changed
    :return: the newest checkpoint that is whole and fits the run's tables; none in a run that has saved none
    :raises CheckpointError: there are checkpoints, and none of them can be used
    """
    refused: dict[Path, CheckpointError] = {}
    for path in reversed(list_checkpoints(folder.checkpoints)):
        try:
            state = read_resume_state(path)
            state.extent.check(folder)
        except CheckpointError as error:
            refused[path] = error
        else:
            return UsableCheckpoint(path, state, refused)
    if refused:
        newest = next(iter(refused.values()))
        raise CheckpointError(
            f"{folder.path}: none of its {len(refused)} checkpoints can be used ({newest}); "
            "remedy: copies of the checkpoints, or train with --config config.json into another folder"
        )
    return UsableCheckpoint(None, None, refused)
