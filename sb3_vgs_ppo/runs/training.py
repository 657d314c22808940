"""One training run from its options to its folder: build, train, evaluate, save, say how it ended."""

from __future__ import annotations

import errno
import math
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HumanOutputFormat, KVWriter, Logger
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv

from sb3_vgs_ppo.callbacks import PlasticityCallback
from sb3_vgs_ppo.change import ChangeCallback, make_change_callback
from sb3_vgs_ppo.change.options import TOLD
from sb3_vgs_ppo.distributional import coverage_table
from sb3_vgs_ppo.errors import RunFolderError, TrainingDiverged
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.algorithm import build_model, gamma_of, resolve
from sb3_vgs_ppo.runs.calibration import play_for_calibration, write_calibration
from sb3_vgs_ppo.runs.calibration_figure import draw_calibration
from sb3_vgs_ppo.runs.checkpointing import list_checkpoints, save_checkpoint
from sb3_vgs_ppo.runs.config import TrainConfig, check_config
from sb3_vgs_ppo.runs.env_state import end_unless_exact
from sb3_vgs_ppo.runs.environments import check_environment, check_phases, make_training_env
from sb3_vgs_ppo.runs.evaluation import (
    Evaluation,
    append_evaluation,
    best_evaluation,
    evaluate,
    evaluation_phase,
    evaluation_seed,
    read_evaluations,
)
from sb3_vgs_ppo.runs.extent import Extent
from sb3_vgs_ppo.runs.figures import draw_curve
from sb3_vgs_ppo.runs.folder import RunFolder, RunState, RunStatus, default_run_dir, new_run_folder
from sb3_vgs_ppo.runs.loop import is_due, iterate
from sb3_vgs_ppo.runs.progress import Display
from sb3_vgs_ppo.runs.progress_csv import ProgressCsv
from sb3_vgs_ppo.runs.record import write_record
from sb3_vgs_ppo.runs.resume_state import ResumeState
from sb3_vgs_ppo.runs.signals import StopRequest, stop_on_signals
from sb3_vgs_ppo.runs.tracking import Tracker, tracking
from sb3_vgs_ppo.runs.video import Video, check_rendering, record_video
from sb3_vgs_ppo.studies.episodes import read_episodes

FINAL_EVALUATION_EPISODES = 20
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
FINAL_EVALUATION_NUMBER = 0  # those during training count from 1
CALIBRATION_NUMBER = 2**32 - 1  # which no evaluation reaches
VIDEO_NUMBER = 2**32 - 2


@dataclass(frozen=True)
class TrainingResult:
    """
    How a run ended.

    :param folder: where everything lies
    :param num_timesteps: environment steps trained
    :param episodes: training episodes that ended
    :param steps_per_second: environment steps per second of training, evaluations and checkpoints included
    :param checkpoint: the last checkpoint
    :param final_evaluation: of the final agent; None if a signal stopped the run
    :param signal_number: the signal that stopped the run, None if it is finished
    :param shown_by: command or address that shows the run, by the title of its tracker
    :param video: an episode of the best agent, None if none was to be recorded
    """

    folder: RunFolder
    num_timesteps: int
    episodes: int
    steps_per_second: float
    checkpoint: Path
    final_evaluation: Evaluation | None = None
    signal_number: int | None = None
    shown_by: Mapping[str, Sequence[str]] = field(default_factory=dict)
    video: Video | None = None


def train(config: TrainConfig, *, display: Display | None = None, command: Sequence[str] = ()) -> TrainingResult:
    """
    Train one agent in a new run folder. In the main thread, SIGINT and SIGTERM stop the run after an update.

    :param config: options of the run
    :param display: what the user sees meanwhile; nothing by default
    :param command: command line, for the record
    :return: how the run ended: finished, or stopped by a signal
    :raises UserInputError: an option cannot be used; nothing is left behind
    :raises TrainingDiverged: updates stopped being finite; the folder keeps what was saved before
    :raises KeyboardInterrupt: a second signal; likewise
    """
    check_config(config)
    run_dir = default_run_dir(config) if config.run_dir is None else Path(config.run_dir).expanduser()
    config = resolve(config)
    check_training_env(config)
    th.set_num_threads(config.torch_threads)
    with stop_on_signals() as stop, new_run_folder(run_dir) as folder, training_env(config, folder) as env:
        model = build_model(config, env)
        with tracking(config, folder) as trackers:
            run = Run(config, folder, model, trackers, display or Display(), stop)
            write_record(folder, config, command)  # from here on, the folder is kept
            return run.execute()


def check_training_env(config: TrainConfig) -> None:
    """:raises UserInputError: the environment of a run cannot be made, or not be used as the options say"""
    check_environment(config.env_id, config.env_kwargs, config.n_envs, config.frame_stack)
    if config.change_kwargs.get(TOLD):
        check_phases(config.env_id, config.env_kwargs)
    if config.record_video:
        check_rendering(config.env_id, config.env_kwargs)


@contextmanager
def training_env(config: TrainConfig, folder: RunFolder, *, append: bool = False) -> Iterator[VecEnv]:
    """
    The environment of a run while the block runs.

    :param config: resolved options
    :param append: go on with monitor files that are there
    """
    env = make_training_env(
        config.env_id,
        config.n_envs,
        config.seed,
        monitor_dir=folder.monitor,
        env_kwargs=config.env_kwargs,
        normalize=config.normalize,
        gamma=gamma_of(config),
        vec_env=config.vec_env,
        frame_stack=config.frame_stack,
        append=append,
    )
    try:
        yield env
    finally:
        env.close()


class Run:
    """
    A built run, from its next rollout to its last file.

    :param config: resolved options
    :param folder: folder that this process holds
    :param model: model with its environments
    :param trackers: where its curves go besides ``progress.csv``
    :param display: what the user sees meanwhile
    :param stop: becomes true on a signal
    :param iteration: number of rollouts behind the model, whose files the folder holds
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        model: DistributionalPPO,
        trackers: Sequence[Tracker],
        display: Display,
        stop: StopRequest,
        iteration: int = 0,
    ) -> None:
        self.config = config
        self.folder = folder
        self.model = model
        self.trackers = trackers
        self.display = display
        self.stop = stop
        self.iteration = iteration
        self.first_step: int = model.num_timesteps
        self.best = best_evaluation(read_evaluations(folder.evaluations))
        self.progress: ProgressCsv = ProgressCsv(folder.progress)
        self.change: ChangeCallback | None = make_change_callback(
            config.on_change, config.change_kwargs, folder.changes
        )
        formats: list[KVWriter] = [self.progress, *trackers]
        if config.verbose and not display.shows_bar:
            formats.append(HumanOutputFormat(sys.stdout))
        model.set_logger(Logger(str(folder.path), formats))

    def execute(self) -> TrainingResult:
        """Train to the end or to a signal. Whatever happens, ``status.json`` says it."""
        self._write_status("running")
        try:
            with self.display:
                started = time.monotonic()
                self._learn()
                return self._finish(seconds=time.monotonic() - started)
        except TrainingDiverged as error:
            self._write_status("diverged", cause=str(error))
            raise
        except KeyboardInterrupt:
            self._write_status("interrupted", cause="stopped at once by a second signal")
            raise KeyboardInterrupt(f"stopped at once; {self._newest_checkpoint()}") from None
        except BaseException as error:
            with suppress(OSError):  # the first error says more than that of a full disk
                self._write_status("interrupted", cause=f"{type(error).__name__}: {error}")
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise RunFolderError(
                    f"run folder {self.folder.path} cannot be written any more: {error}; {self._newest_checkpoint()}; "
                    "remedy: make room, then resume"
                ) from error
            raise
        finally:
            self.model.logger.close()

    def _learn(self) -> None:
        config, model = self.config, self.model
        rollout = model.n_steps * model.n_envs
        self.display.start(math.ceil(config.total_timesteps / rollout) * rollout, self.first_step)
        self.display.message(
            f"Training on {config.env_id}: {config.total_timesteps:,} steps in {config.n_envs} environments, "
            f"seed {config.seed}, {config.device}; run folder {self.folder.path}"
        )
        callbacks: list[BaseCallback] = [_StepCounter(self.display)]
        if config.plasticity_metrics:
            callbacks.append(PlasticityCallback())
        if self.change is not None:
            callbacks.append(self.change)
        for iteration in iterate(model, config.total_timesteps, callbacks, iteration=self.iteration):
            if self.change is not None:
                self.change.after_update()
            if is_due(config.eval_every, model):
                self._evaluate()
            self._show_figures()
            model.dump_logs(iteration)
            last = model.num_timesteps >= config.total_timesteps or self.stop.signal_number is not None
            if last or is_due(config.checkpoint_every, model):
                self._save_checkpoint(iteration)
            if last:
                break

    def _save_checkpoint(self, iteration: int) -> None:
        config, folder, model = self.config, self.folder, self.model
        seed = end_unless_exact(model, config.seed)
        state = ResumeState.of_run(model, iteration, Extent.of_run(folder, self.progress), seed, self.change)
        save_checkpoint(model, folder.checkpoints, config.keep_checkpoints, state)
        self._write_status("running")

    def _evaluate(self) -> None:
        config, model = self.config, self.model
        number = model.num_timesteps // config.eval_every
        evaluation = self._play(config.eval_episodes, number)
        is_best = self.best is None or evaluation.mean_reward > self.best.mean_reward
        if is_best:
            self.best = evaluation
            model.save(self.folder.best_model)
        append_evaluation(self.folder.evaluations, evaluation)
        model.logger.record("eval/mean_reward", evaluation.mean_reward)
        model.logger.record("eval/mean_ep_length", evaluation.mean_ep_length)
        self.display.message(f"{model.num_timesteps:>9,} steps: {evaluation}{', the best so far' if is_best else ''}")

    def _play(self, n_episodes: int, number: int) -> Evaluation:
        config = self.config
        return evaluate(
            self.model,
            config.env_id,
            config.n_envs,
            n_episodes,
            evaluation_seed(config.seed, number),
            env_kwargs=config.env_kwargs,
            phase=evaluation_phase(config, self.model.num_timesteps),
        )

    def _show_figures(self) -> None:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        vgs_factor = self.model.logger.name_to_value.get("vgs/scaling_factor")
        self.display.update(self.model.num_timesteps, safe_mean(returns), vgs_factor)

    def _finish(self, seconds: float) -> TrainingResult:
        config, folder, model = self.config, self.folder, self.model
        episodes = read_episodes(folder.monitor)
        result = TrainingResult(
            folder=folder,
            num_timesteps=model.num_timesteps,
            episodes=len(episodes),
            steps_per_second=round((model.num_timesteps - self.first_step) / seconds, 1),
            checkpoint=list_checkpoints(folder.checkpoints)[-1],
            shown_by={tracker.title: tracker.shown_by for tracker in self.trackers},
        )
        setting = f"{config.value_head} critic, {config.optimizer}, VGS {config.vgs_version}, seed {config.seed}"
        title, alarms = f"{config.env_id}: {setting}", self.change.alarms if self.change else ()
        draw_curve(folder.curve, title, episodes, read_evaluations(folder.evaluations), alarms)
        if self.stop.signal_number is not None and model.num_timesteps < config.total_timesteps:
            self._write_status("interrupted", cause=f"stopped by {signal.Signals(self.stop.signal_number).name}")
            return replace(result, signal_number=self.stop.signal_number)
        final = self._play(FINAL_EVALUATION_EPISODES, FINAL_EVALUATION_NUMBER)
        model.save(folder.final_model)
        self._calibrate(title)
        video = self._record_video() if config.record_video else None
        summary = {
            "final_mean_reward": final.mean_reward,
            "final_std_reward": final.std_reward,
            "final_episodes": len(final.rewards),
            "training_episodes": result.episodes,
            "steps_per_second": result.steps_per_second,
        }
        self._write_status("finished", summary=summary)  # written last: whoever reads it finds everything else
        return replace(result, final_evaluation=final, video=video)

    def _calibrate(self, title: str) -> None:
        """Compare predicted with realised returns. A scalar critic predicts nothing that could be covered."""
        config, model = self.config, self.model
        if model.policy.value_head == "scalar":
            return
        realised = play_for_calibration(
            model,
            config.env_id,
            config.n_envs,
            evaluation_seed(config.seed, CALIBRATION_NUMBER),
            env_kwargs=config.env_kwargs,
            phase=evaluation_phase(config, model.num_timesteps),
        )
        table = coverage_table(realised)
        write_calibration(self.folder.calibration, table, realised)
        draw_calibration(self.folder.calibration_figure, title, realised, table)

    def _record_video(self) -> Video:
        """Record the best agent of the evaluations, or the final one where there was none."""
        config, folder = self.config, self.folder
        env = self.model.get_env()
        assert env is not None
        return record_video(
            folder.final_model if self.best is None else folder.best_model,
            folder.path,
            config.env_id,
            evaluation_seed(config.seed, VIDEO_NUMBER),
            env,
            env_kwargs=config.env_kwargs,
            phase_at=partial(evaluation_phase, config),
            device=config.device,
        )

    def _write_status(self, state: RunState, cause: str | None = None, summary: dict[str, Any] | None = None) -> None:
        status = RunStatus(state, self.model.num_timesteps, self.config.total_timesteps, cause, summary)
        self.folder.write_status(status)

    def _newest_checkpoint(self) -> str:
        saved = list_checkpoints(self.folder.checkpoints)
        return f"newest checkpoint: {saved[-1]}" if saved else "no checkpoint was saved yet"


class _StepCounter(BaseCallback):
    """Tells a display how far the training is."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self.display = display

    def _on_step(self) -> bool:
        self.display.step(self.num_timesteps)
        return True
