"""Training an agent of a legacy VGS version anew under the fixed one, and the old curve beside the new one."""

from __future__ import annotations

import inspect
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch as th

from sb3_vgs_ppo._files import write_json
from sb3_vgs_ppo.checkpoint import read_checkpoint
from sb3_vgs_ppo.checkpoint.vec_normalize import VEC_NORMALIZE
from sb3_vgs_ppo.errors import RunFolderError, UserInputError, VGSMigrationWarning
from sb3_vgs_ppo.migration import migrate_checkpoint
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.ppo.loading import load_checkpoint
from sb3_vgs_ppo.runs.algorithm import ACTIVATIONS, OPTIMIZERS, resolve
from sb3_vgs_ppo.runs.checkpointing import find_usable_checkpoint, list_checkpoints
from sb3_vgs_ppo.runs.config import VGS_OFF, TrainConfig, check_config
from sb3_vgs_ppo.runs.environments import stacked_observations
from sb3_vgs_ppo.runs.evaluation import Evaluation, evaluate, evaluation_phase, evaluation_seed
from sb3_vgs_ppo.runs.folder import RunFolder, new_run_folder, read_json
from sb3_vgs_ppo.runs.progress import Display
from sb3_vgs_ppo.runs.record import write_record
from sb3_vgs_ppo.runs.resuming import on_device, read_config, resume
from sb3_vgs_ppo.runs.retraining_figure import draw_comparison
from sb3_vgs_ppo.runs.signals import stop_on_signals
from sb3_vgs_ppo.runs.tracking import tracking
from sb3_vgs_ppo.runs.training import (
    FINAL_EVALUATION_EPISODES,
    Run,
    TrainingResult,
    check_training_env,
    train,
    training_env,
)

Name = TypeVar("Name", bound=str)

_CURVES = ("config.json", "status.json", "progress.csv", "evaluations.csv", "monitor")
"""What is copied of the old run: all that its curves are drawn from, and not its checkpoints."""


@dataclass(frozen=True)
class Source:
    """
    An agent to be retrained.

    :param config: resolved options with which it was trained
    :param checkpoint: its newest checkpoint
    :param run: folder of its training; None if only the checkpoint is there
    """

    config: TrainConfig
    checkpoint: Path
    run: RunFolder | None


@dataclass(frozen=True)
class Retraining:
    """
    :param folder: study folder: ``old/`` and ``new/``, ``comparison.png``, ``summary.json``
    :param old: final evaluation of the old agent
    :param result: how the new training ended; None if it was finished before
    :param new_mean_reward: mean of the new agent's final evaluation, None if a signal stopped the training
    """

    folder: Path
    old: Evaluation
    result: TrainingResult | None
    new_mean_reward: float | None


def retrain(
    path: Path,
    out: Path | None = None,
    *,
    to_version: str = "3.0",
    continue_weights: bool = False,
    env_id: str | None = None,
    total_timesteps: int | None = None,
    device: str | None = None,
    display: Display | None = None,
    command: Sequence[str] = (),
) -> Retraining:
    """
    Train again what a run or checkpoint was trained for, with the same options and seed, under another VGS version.

    Called again for the same study folder, it goes on where it was stopped, or draws the figure again.

    :param path: run folder, or checkpoint of this package
    :param out: study folder, new or empty; ``<run>_vgs-<version>`` beside the source by default
    :param to_version: VGS version of the new training
    :param continue_weights: start from the old agent's weights, migrated, instead of from scratch
    :param env_id: environment, which a checkpoint does not tell; refused for a run that was trained in another
    :param total_timesteps: steps of the new training, those of the old one by default
    :param device: where the new training computes, where the old one did by default
    :param display: what the user sees meanwhile
    :param command: command line, for the record
    :return: old and new
    :raises UserInputError: an option cannot be used, or the source was trained with this version already
    :raises CheckpointError: the source's checkpoint cannot be read
    :raises TrainingDiverged: the new training diverged; its folder stays
    """
    source = read_source(path, env_id)
    if source.config.vgs_version == to_version:
        raise UserInputError(f"{path} was trained with VGS {to_version} already; remedy: another --to-version")
    if source.config.vgs_version == VGS_OFF and continue_weights:
        raise UserInputError(f"{path} was trained without VGS, so there is nothing to migrate; remedy: no --continue")
    out = out or Path(f"{source.run.path if source.run else source.checkpoint.with_suffix('')}_vgs-{to_version}")
    config = replace(source.config, vgs_version=to_version, run_dir=str(out / "new"))
    config = on_device(replace(config, total_timesteps=total_timesteps or config.total_timesteps), device)
    config = resolve(config)
    check_config(config)
    check_training_env(config)
    display = display or Display()
    old = _evaluate_old(source)  # before hours of training: a source that cannot be loaded shows now
    result = _train_anew(source, config, out, continue_weights, display, command)
    if source.run:
        _copy_curves(source.run, out / "old")
    status = RunFolder(out / "new").read_status()
    new_mean = (status.summary or {}).get("final_mean_reward")
    draw_comparison(
        out / "comparison.png",
        config.env_id,
        old_run=RunFolder(out / "old") if source.run else None,
        old_label=f"VGS {source.config.vgs_version} (old)",
        old_mean=old.mean_reward,
        new_run=RunFolder(out / "new"),
        new_label=f"VGS {to_version} ({'continued' if continue_weights else 'retrained'})",
        offset=read_checkpoint(source.checkpoint).manifest.num_timesteps if continue_weights else 0,
    )
    _write_summary(out, path, source, config, continue_weights, old, new_mean)
    return Retraining(out, old, result, new_mean)


def read_source(path: Path, env_id: str | None) -> Source:
    """
    :param path: run folder, or checkpoint, which may lie in one
    :param env_id: what the user said of the environment
    :raises UserInputError: nothing to retrain from, or the environment is missing or another
    """
    folder = path if path.is_dir() else next((p for p in path.parents[:2] if (p / "config.json").is_file()), None)
    if folder is None:
        if not path.is_file():
            raise UserInputError(f"{path} is neither a run folder nor a checkpoint")
        return _source_of_checkpoint(path, env_id)
    if not path.exists():
        raise UserInputError(f"{path} does not exist")
    run = RunFolder(folder)
    config = read_config(run)
    if env_id not in (None, config.env_id):
        raise UserInputError(f"--env-id {env_id!r}: {folder} was trained in {config.env_id}; remedy: leave it out")
    checkpoint = path
    if path.is_dir():
        saved = list_checkpoints(run.checkpoints)
        if not saved:
            raise UserInputError(f"{folder} has no checkpoint; remedy: resume it first")
        checkpoint = run.final_model if run.final_model.is_file() else saved[-1]
    return Source(config, checkpoint, run)


def _source_of_checkpoint(path: Path, env_id: str | None) -> Source:
    if env_id is None:
        raise UserInputError(f"{path} does not tell its environment; remedy: --env-id")
    model = load_checkpoint(path, device="cpu")
    config = TrainConfig(
        env_id=env_id,
        total_timesteps=max(model.num_timesteps, 1),
        n_envs=model.n_envs,
        frame_stack=stacked_observations(env_id, model.observation_space),
        seed=model.seed or 0,
        vgs_version=model.vgs_version or VGS_OFF,
        optimizer=_name_of(type(model.policy.optimizer), OPTIMIZERS, path),
        value_head=model.policy.value_head,
        risk_measure=model.risk_measure,
        value_target=model.value_target,
        compile=model.compile,
        algo_kwargs=_algo_kwargs(model, path),
        normalize=VEC_NORMALIZE in read_checkpoint(path).archive.members,
    )
    return Source(config, path, None)


def _algo_kwargs(model: DistributionalPPO, path: Path) -> dict[str, Any]:
    """:return: the arguments that differ from their defaults, as they stand in a configuration"""
    decided = {
        "seed",
        "device",
        "vgs_version",
        "risk_measure",
        "value_target",
        "compile",
        "tensorboard_log",
        "verbose",
        "stats_window_size",
        "rollout_buffer_class",
    }
    kwargs: dict[str, Any] = {"n_steps": model.n_steps}
    for name, parameter in inspect.signature(DistributionalPPO).parameters.items():
        if name in decided | {"policy", "env", "policy_kwargs", "_init_setup_model"}:
            continue
        value = getattr(model, name)
        if callable(value):
            value = _constant(value, name, path)
        if value not in (parameter.default, {}):
            kwargs[name] = value
    policy_kwargs = {
        name: _name_of(value, ACTIVATIONS, path) if name == "activation_fn" else value
        for name, value in model.policy_kwargs.items()
        if name not in ("value_head", "optimizer_class")
    }
    return {**kwargs, **({"policy_kwargs": policy_kwargs} if policy_kwargs else {})}


def _constant(schedule: Callable[[float], float], name: str, path: Path) -> float:
    if schedule(1.0) != schedule(0.0):
        raise UserInputError(f"{path}: {name} is a schedule, which options cannot express; remedy: retrain in Python")
    return float(schedule(1.0))


def _name_of(kind: type, names: Mapping[Name, type], path: Path) -> Name:
    for name, known in names.items():
        if known is kind:
            return name
    raise UserInputError(f"{path}: {kind.__name__} has no name among the options; remedy: retrain in Python")


def _train_anew(
    source: Source, config: TrainConfig, out: Path, continue_weights: bool, display: Display, command: Sequence[str]
) -> TrainingResult | None:
    new = RunFolder(out / "new")
    if new.config.is_file():
        if find_usable_checkpoint(new).path is None:
            raise RunFolderError(
                f"{new.path} was stopped before its first checkpoint; remedy: remove {out}, start again"
            )
        begun = read_config(new)
        is_continued = read_json(new.config).get("parent") is not None
        if begun != replace(config, run_dir=begun.run_dir) or is_continued != continue_weights:
            raise RunFolderError(f"{out} was begun with other options; remedy: the same command, or another --out")
        return resume(new.path, display=display, command=command)
    if out.exists() and any(out.iterdir()):
        raise RunFolderError(f"study folder {out} is not empty; remedy: another --out, or move the old one away")
    if not continue_weights:
        return train(config, display=display, command=command)
    return train_migrated(source.checkpoint, config, display=display, command=command)


def train_migrated(
    checkpoint: Path,
    config: TrainConfig,
    *,
    parent: Path | None = None,
    display: Display | None = None,
    command: Sequence[str] = (),
) -> TrainingResult:
    """
    Start a run from the weights of a checkpoint, migrated to the VGS version of the run.

    :param checkpoint: checkpoint of this package
    :param config: resolved options of the run, with VGS
    :param parent: what the record names as the run's parent; the checkpoint by default
    :param display: what the user sees meanwhile
    :param command: command line, for the record
    :return: how the run ended
    """
    with tempfile.TemporaryDirectory() as scratch:
        migrated = Path(scratch, "migrated.zip")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VGSMigrationWarning)  # that statistics restart is what is asked for
            migrate_checkpoint(checkpoint, migrated, to_version=config.vgs_version)
        return train_from(migrated, config, parent=parent or checkpoint, display=display or Display(), command=command)


def continue_checkpoint(
    path: Path,
    run_dir: Path | None,
    *,
    env_id: str | None = None,
    total_timesteps: int | None = None,
    device: str | None = None,
    display: Display | None = None,
    command: Sequence[str] = (),
) -> TrainingResult:
    """
    Train on from a checkpoint, such as a migrated one, in a new run folder that records it as its parent. Steps and
    schedules start anew.

    :param path: checkpoint of this package
    :param run_dir: folder of the new run, new or empty; ``<checkpoint>_continued`` by default
    :param env_id: environment, which a checkpoint outside a run folder does not tell
    :param total_timesteps: steps of the new run, those of the old one by default
    :param device: where the new run computes, where the old one did by default
    :param display: what the user sees meanwhile
    :param command: command line, for the record
    :return: how the new run ended
    :raises UserInputError: an option cannot be used
    :raises CheckpointError: the checkpoint cannot be read
    """
    source = read_source(path, env_id)
    run_dir = run_dir or Path(f"{path.with_suffix('')}_continued")
    total = total_timesteps or source.config.total_timesteps
    config = on_device(replace(source.config, run_dir=str(run_dir), total_timesteps=total), device)
    config = resolve(config)
    check_config(config)
    check_training_env(config)
    return train_from(path, config, parent=path, display=display or Display(), command=command)


def train_from(
    checkpoint: Path, config: TrainConfig, *, parent: Path, display: Display, command: Sequence[str]
) -> TrainingResult:
    """
    Start a run from the weights, optimizer and scaler of a checkpoint; its steps and schedules start anew.

    :param checkpoint: file to start from
    :param config: resolved options of the run
    :param parent: what the record names as the run's parent
    :param display: what the user sees meanwhile
    :param command: command line, for the record
    :return: how the run ended
    """
    th.set_num_threads(config.torch_threads)
    with (
        stop_on_signals() as stop,
        new_run_folder(Path(config.run_dir or "")) as folder,
        training_env(config, folder) as env,
    ):
        model = load_checkpoint(checkpoint, env, device=config.device)
        model.set_random_seed(config.seed)
        model.num_timesteps = 0  # a new run, whose steps are counted from its start
        with tracking(config, folder) as trackers:
            run = Run(config, folder, model, trackers, display, stop)
            write_record(folder, config, command, parent=str(parent))
            return run.execute()


def _evaluate_old(source: Source) -> Evaluation:
    """:return: evaluation of the old agent, with the episodes of a final evaluation"""
    config = source.config
    with tempfile.TemporaryDirectory() as scratch, training_env(config, RunFolder(Path(scratch))) as env:
        model = load_checkpoint(source.checkpoint, env, device="cpu")
        return evaluate(
            model,
            config.env_id,
            config.n_envs,
            FINAL_EVALUATION_EPISODES,
            evaluation_seed(config.seed, 0),
            env_kwargs=config.env_kwargs,
            phase=evaluation_phase(config, model.num_timesteps),
        )


def _copy_curves(run: RunFolder, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in _CURVES:
        original = run.path / name
        if original.is_dir():
            shutil.copytree(original, target / name, dirs_exist_ok=True)
        elif original.is_file():
            shutil.copy2(original, target / name)


def _write_summary(
    out: Path,
    path: Path,
    source: Source,
    config: TrainConfig,
    continue_weights: bool,
    old: Evaluation,
    new_mean: float | None,
) -> None:
    write_json(
        out / "summary.json",
        {
            "source": str(path),
            "env_id": config.env_id,
            "continued": continue_weights,
            "old": {"vgs_version": source.config.vgs_version, "mean_reward": old.mean_reward, "sd": old.std_reward},
            "new": {"vgs_version": config.vgs_version, "mean_reward": new_mean},
            "episodes": FINAL_EVALUATION_EPISODES,
            "seeds": 1,
        },
    )
