"""Continuing a run whose process is gone, from its newest checkpoint, as if it had never been interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch as th
from stable_baselines3.common.utils import get_device

from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo.loading import load_checkpoint
from sb3_vgs_ppo.runs.algorithm import build_model
from sb3_vgs_ppo.runs.checkpointing import UsableCheckpoint, find_usable_checkpoint
from sb3_vgs_ppo.runs.config import TrainConfig, check_config, check_device
from sb3_vgs_ppo.runs.config_file import config_from_mapping
from sb3_vgs_ppo.runs.extent import Extent
from sb3_vgs_ppo.runs.folder import RunFolder, existing_run_folder, read_json
from sb3_vgs_ppo.runs.progress import Display
from sb3_vgs_ppo.runs.record import add_resumption
from sb3_vgs_ppo.runs.resume_state import RUN_STATE
from sb3_vgs_ppo.runs.signals import StopRequest, stop_on_signals
from sb3_vgs_ppo.runs.tracking import tracking
from sb3_vgs_ppo.runs.training import Run, TrainingResult, check_training_env, training_env


def resume(
    path: Path,
    total_timesteps: int | None = None,
    device: str | None = None,
    *,
    display: Display | None = None,
    command: Sequence[str] = (),
) -> TrainingResult | None:
    """
    Continue a run from its newest checkpoint, or from its beginning where it has none. On the CPU the result is, bit
    for bit, that of a run which was never interrupted. Signals act as in :func:`sb3_vgs_ppo.runs.training.train`.

    :param path: run folder
    :param total_timesteps: environment steps of the whole run, if not those that it was started with. Schedules follow
        the new number
    :param device: where to compute from here on, if not where the run did. Another kind of device draws other random
        numbers, so the run is then continued closely, not exactly
    :param display: what the user sees meanwhile; nothing by default
    :param command: command line, for the record
    :return: how the run ended; None if it was finished before
    :raises RunFolderError: not a run folder, in use by another live process, or not writable
    :raises UserInputError: the run already has as many steps, or the device cannot be used
    :raises CheckpointError: there are checkpoints, and none of them can be used
    :raises TrainingDiverged: see :func:`sb3_vgs_ppo.runs.training.train`
    """
    display = display or Display()
    with stop_on_signals() as stop, existing_run_folder(path) as folder:
        config = read_config(folder)
        if total_timesteps is None and _is_finished(folder):
            return None
        usable = find_usable_checkpoint(folder)
        parent = read_json(folder.config).get("parent")
        if usable.path is None and parent is not None:
            raise UserInputError(
                f"{path} started from {parent} and has no checkpoint of its own yet; remedy: start it again from there"
            )
        if total_timesteps is not None:
            if total_timesteps <= usable.step:
                raise UserInputError(
                    f"--total-timesteps {total_timesteps}: the run has {usable.step} steps; remedy: a larger number"
                )
            display.message(f"Schedules follow {total_timesteps:,} steps from here on, not {config.total_timesteps:,}")
            config = replace(config, total_timesteps=total_timesteps)
        config = on_device(config, device)
        check_config(config)
        check_training_env(config)
        th.set_num_threads(config.torch_threads)
        _explain(display, usable)
        _cut_back(folder, usable)
        add_resumption(folder, config, command, usable.step)
        return _continue(config, folder, usable, display, stop)


def read_config(folder: RunFolder) -> TrainConfig:
    """:return: resolved options of a run, with its folder"""
    options = read_json(folder.config).get("options")
    if not isinstance(options, dict):
        raise UserInputError(f"{folder.config} holds no options; remedy: a folder that train has made")
    return replace(config_from_mapping(options, str(folder.config)), run_dir=str(folder.path))


def on_device(config: TrainConfig, device: str | None) -> TrainConfig:
    """
    :param device: another device than the options'; None for theirs
    :return: the options of a run that computes there
    :raises UserInputError: there is no such device here
    """
    check_device(device or config.device)
    return replace(config, device=str(get_device(device or config.device)))


def _is_finished(folder: RunFolder) -> bool:
    return folder.status.exists() and folder.read_status().state == "finished"


def _explain(display: Display, usable: UsableCheckpoint) -> None:
    for path, error in usable.refused.items():
        display.message(f"Checkpoint {path.name} cannot be used: {error}")
    display.message(f"Resuming from {usable.path or 'step 0: no checkpoint was saved yet'}")


def _cut_back(folder: RunFolder, usable: UsableCheckpoint) -> None:
    """Take the folder back to the checkpoint: a killed process has often written more."""
    for path in usable.refused:
        path.rename(path.with_suffix(".zip.unusable"))  # else the newest, which is the one to be kept
    (usable.state.extent if usable.state else Extent.of_nothing()).cut(folder)


def _continue(
    config: TrainConfig, folder: RunFolder, usable: UsableCheckpoint, display: Display, stop: StopRequest
) -> TrainingResult:
    with training_env(config, folder, append=usable.state is not None) as env:
        if usable.path is None or usable.state is None:
            model = build_model(config, env)
            with tracking(config, folder) as trackers:
                return Run(config, folder, model, trackers, display, stop).execute()
        model = load_checkpoint(usable.path, env, device=config.device)
        with tracking(config, folder) as trackers:
            run = Run(config, folder, model, trackers, display, stop, usable.state.iteration)
            with as_checkpoint_error(f"{usable.path}: {RUN_STATE}"):
                usable.state.restore(model, run.change)
            return run.execute()
