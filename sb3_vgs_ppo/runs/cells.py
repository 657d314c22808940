"""One cell of a study: a training run that is started, continued or found finished, whatever happened before."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sb3_vgs_ppo.errors import StudyError, TrainingDiverged
from sb3_vgs_ppo.runs.algorithm import resolve
from sb3_vgs_ppo.runs.checkpointing import find_usable_checkpoint, list_checkpoints
from sb3_vgs_ppo.runs.config import TrainConfig, check_config
from sb3_vgs_ppo.runs.config_file import config_from_mapping, read_config_file
from sb3_vgs_ppo.runs.folder import RunFolder, RunState, read_json
from sb3_vgs_ppo.runs.resuming import resume
from sb3_vgs_ppo.runs.retraining import train_migrated
from sb3_vgs_ppo.runs.training import TrainingResult, train
from sb3_vgs_ppo.studies.definition import Cell, Study
from sb3_vgs_ppo.studies.store import StudyStore


@dataclass(frozen=True)
class CellTask:
    """
    All that a worker needs to know, in plain values that cross processes and machines.

    :param config: options of the run; its folder lies in the store
    :param parent: checkpoint of the agent that is trained on, None for an agent from scratch
    """

    cell: Cell
    config: TrainConfig
    parent: Path | None = None

    @property
    def first_step(self) -> int:
        """Environment steps of the agent that is trained on."""
        return int(self.parent.stem) if self.parent else 0


def cell_config(study: Study, cell: Cell) -> TrainConfig:
    """
    :return: options of a cell, checked, without its folder
    :raises UserInputError: an option that there is not, or with a value that it cannot take
    """
    config = config_from_mapping(study.train_options(cell), f"{cell.env_id}, variant {cell.variant}")
    check_config(config)
    return resolve(config)


def cell_options(study: Study, cell: Cell) -> dict[str, Any]:
    """:return: all options of a cell, those at their defaults too"""
    return cell_config(study, cell).to_mapping()


def trained_options(folder: Path) -> dict[str, Any]:
    """:return: all options with which a cell was trained, those too that came later, at their defaults"""
    return read_config_file(RunFolder(folder).config).to_mapping()


def cell_task(store: StudyStore, cell: Cell) -> CellTask:
    """
    :param cell: a cell whose parent, if it has one, is done
    :raises StudyError: the parent has no checkpoint to train on from
    """
    config = replace(cell_config(store.study, cell), run_dir=str(store.folder(cell)))
    parent = store.study.parent(cell)
    if parent is None:
        return CellTask(cell, config)
    step = store.study.variant(cell.variant).from_step or 0
    for path in list_checkpoints(RunFolder(store.folder(parent)).checkpoints):
        if int(path.stem) >= step:
            return CellTask(cell, config, path)
    raise StudyError(f"{cell}: {parent} has no checkpoint after step {step}; remedy: remove {store.folder(parent)}")


def run_cell(task: CellTask, parent_copy: Path | None = None) -> RunState:
    """
    Train a cell to its end. What an earlier attempt left is continued exactly, and a finished one is left alone.

    :param parent_copy: where the parent's checkpoint lies on this machine, if not at its own place
    :return: finished, diverged, or interrupted by a signal
    :raises VgsPpoError: the run cannot be started or continued
    """
    folder = RunFolder(Path(task.config.run_dir or ""))
    try:
        if _can_go_on(folder):
            if folder.status.exists() and folder.read_status().state == "diverged":
                return "diverged"
            result = resume(folder.path)
        else:
            _clear(folder)
            result = _start(task, parent_copy)
    except TrainingDiverged:
        return "diverged"
    return "interrupted" if result is not None and result.signal_number is not None else "finished"


def _start(task: CellTask, parent_copy: Path | None) -> TrainingResult:
    if task.parent is None:
        return train(task.config)
    return train_migrated(parent_copy or task.parent, task.config, parent=task.parent)


def _can_go_on(folder: RunFolder) -> bool:
    """:return: False where a run was killed too early to be continued"""
    if not folder.config.is_file():
        return False
    is_continuation = read_json(folder.config).get("parent") is not None
    return not is_continuation or find_usable_checkpoint(folder).path is not None


def _clear(folder: RunFolder) -> None:
    """Remove what a run left that was killed before there was anything to keep."""
    if folder.path.exists():
        if folder.is_in_use():
            raise StudyError(f"{folder.path} is in use by another live process; remedy: wait until it ends")
        shutil.rmtree(folder.path)
