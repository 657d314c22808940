"""Checkpoints of a run: ``checkpoints/<step>.zip``, of which the newest few are kept."""

from __future__ import annotations

from pathlib import Path

from stable_baselines3 import PPO


def save_checkpoint(model: PPO, folder: Path, keep: int) -> Path:
    """
    Save the model between an update and the next rollout, then remove all but the newest ``keep`` checkpoints.

    :param folder: folder of the checkpoints; made where it is missing
    :return: the new file. One for the same step is overwritten, and holds the same
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{model.num_timesteps}.zip"
    model.save(path)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """:return: the checkpoints, oldest first"""
    return sorted((path for path in folder.glob("*.zip") if path.stem.isdigit()), key=lambda path: int(path.stem))
