from __future__ import annotations

import csv
import io
import json
import os
import signal
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch as th

from sb3_vgs_ppo.errors import RunFolderError, TrainingDiverged, UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs import training
from sb3_vgs_ppo.runs.checkpointing import list_checkpoints
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.config_file import config_from_mapping
from sb3_vgs_ppo.runs.environments import make_training_env
from sb3_vgs_ppo.runs.evaluation import Evaluation, evaluate, evaluation_seed, read_evaluations
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.runs.progress import Display
from sb3_vgs_ppo.runs.record import write_record
from sb3_vgs_ppo.runs.training import train

Configure = Callable[..., TrainConfig]
TIME = ("time/fps", "time/time_elapsed")


@pytest.fixture(autouse=True)
def _short_final_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "FINAL_EVALUATION_EPISODES", 4)


class Recorder(Display):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.total = 0
        self.steps: list[int] = []
        self.updates: list[tuple[int, float, float | None]] = []

    def start(self, total_timesteps: int, num_timesteps: int = 0) -> None:
        self.total = total_timesteps

    def step(self, num_timesteps: int) -> None:
        self.steps.append(num_timesteps)

    def update(self, num_timesteps: int, mean_return: float, vgs_factor: float | None) -> None:
        self.updates.append((num_timesteps, mean_return, vgs_factor))

    def message(self, text: str) -> None:
        self.messages.append(text)


class Killer(Display):
    """Sends signals to its own process once training has come to a step."""

    def __init__(self, at_step: int, *signals: int) -> None:
        self.at_step = at_step
        self.signals = list(signals)

    def step(self, num_timesteps: int) -> None:
        while num_timesteps >= self.at_step and self.signals:
            os.kill(os.getpid(), self.signals.pop(0))


def parameters_of(path: Path) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(DistributionalPPO.load(path).policy.parameters()).detach()


def progress_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in TIME} for row in rows]


def test_checkpoints_lie_at_multiples_and_the_newest_are_kept(short_config: Configure) -> None:
    config = short_config(checkpoint_every=200, keep_checkpoints=2, eval_every=0, total_timesteps=700)
    result = train(config)
    # Rollouts of 128 steps; multiples of 200 are reached at 256, 512, 640; training ends at 768
    assert [path.stem for path in list_checkpoints(result.folder.checkpoints)] == ["640", "768"]
    assert result.checkpoint.stem == "768"
    assert result.num_timesteps == 768
    assert th.equal(parameters_of(result.checkpoint), parameters_of(result.folder.final_model))
    assert read_evaluations(result.folder.evaluations) == []
    assert not result.folder.best_model.exists()


def test_without_a_period_there_is_one_checkpoint(short_config: Configure) -> None:
    result = train(short_config(checkpoint_every=0, eval_every=0, total_timesteps=256))
    assert [path.name for path in list_checkpoints(result.folder.checkpoints)] == ["256.zip"]


def test_evaluations_do_not_change_what_is_learnt(short_config: Configure, tmp_path: Path) -> None:
    watched = train(short_config(env_id="Pendulum-v1", normalize=True))
    alone = train(short_config(env_id="Pendulum-v1", normalize=True, eval_every=0, run_dir=str(tmp_path / "alone")))
    assert th.equal(parameters_of(watched.folder.final_model), parameters_of(alone.folder.final_model))


def test_the_same_seed_gives_the_same_run_and_another_does_not(short_config: Configure, tmp_path: Path) -> None:
    first = train(short_config())
    second = train(short_config(run_dir=str(tmp_path / "again")))
    other = train(short_config(run_dir=str(tmp_path / "other"), seed=1))
    assert progress_of(first.folder.path) == progress_of(second.folder.path) != progress_of(other.folder.path)
    assert first.folder.evaluations.read_text() == second.folder.evaluations.read_text()
    assert first.final_evaluation == second.final_evaluation != other.final_evaluation
    tables = [run.folder.calibration.read_text() for run in (first, second, other)]
    assert tables[0] == tables[1] != tables[2]


def test_a_scalar_critic_has_nothing_to_calibrate(short_config: Configure) -> None:
    folder = train(short_config(value_head="scalar", total_timesteps=128, eval_every=0)).folder
    assert folder.read_status().state == "finished"
    assert not folder.calibration.exists()
    assert not folder.calibration_figure.exists()


def test_evaluations_can_be_repeated_from_what_was_saved(short_config: Configure, tmp_path: Path) -> None:
    config = short_config(keep_checkpoints=4)
    folder = train(config).folder
    evaluations = read_evaluations(folder.evaluations)
    assert [evaluation.step for evaluation in evaluations] == [256, 512]
    best = max(evaluations, key=lambda evaluation: evaluation.mean_reward)
    saved = [(folder.checkpoints / f"{each.step}.zip", each) for each in evaluations] + [(folder.best_model, best)]
    env = make_training_env(config.env_id, 2, 0, monitor_dir=tmp_path / "monitor")
    for path, evaluation in saved:
        model = DistributionalPPO.load(path, env=env)
        seed = evaluation_seed(config.seed, evaluation.step // config.eval_every)
        assert evaluate(model, config.env_id, 2, config.eval_episodes, seed) == evaluation


def test_normalization_statistics_are_saved_with_the_model(short_config: Configure) -> None:
    result = train(short_config(env_id="Pendulum-v1", normalize=True, eval_every=0, total_timesteps=256))
    with zipfile.ZipFile(result.folder.final_model) as archive:
        state = th.load(io.BytesIO(archive.read("vec_normalize.pt")), weights_only=True)
    # Two environments, reset and 128 steps each; RunningMeanStd starts with a count of 1e-4
    assert state["obs_rms"]["count"] == pytest.approx(2 * 129 + 1e-4)


def test_the_display_hears_of_everything(short_config: Configure) -> None:
    display = Recorder()
    result = train(short_config(total_timesteps=400), display=display)
    assert display.total == 512
    assert display.steps == list(range(2, 514, 2))
    assert [step for step, _, _ in display.updates] == [128, 256, 384, 512]
    for _, mean_return, vgs_factor in display.updates:
        assert mean_return >= 8  # no CartPole falls faster
        assert vgs_factor is not None
        assert 0 < vgs_factor <= 1
    assert display.messages[0].startswith(
        "Training on CartPole-v1: 400 steps in 2 environments, seed 0, cpu; run folder"
    )
    first, second = read_evaluations(result.folder.evaluations)
    assert display.messages[1] == f"      256 steps: {first}, the best so far"
    better = second.mean_reward > first.mean_reward
    assert display.messages[2:] == [f"      512 steps: {second}{', the best so far' if better else ''}"]


@pytest.mark.parametrize("shows_bar", [False, True])
def test_verbose_prints_tables_unless_they_would_tear_a_bar(
    shows_bar: bool, short_config: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    display = Display()
    display.shows_bar = shows_bar  # type: ignore[misc]
    train(short_config(total_timesteps=128, eval_every=0, verbose=1), display=display)
    assert ("|    total_timesteps" in capsys.readouterr().out) is not shows_bar


def test_a_signal_stops_after_the_update_and_saves(short_config: Configure) -> None:
    result = train(short_config(checkpoint_every=0), display=Killer(130, signal.SIGTERM))
    assert result.signal_number == signal.SIGTERM
    assert result.num_timesteps == 256  # the end of the second rollout
    assert result.checkpoint.name == "256.zip"
    assert DistributionalPPO.load(result.checkpoint).num_timesteps == 256
    assert result.final_evaluation is None
    assert not result.folder.final_model.exists()
    assert result.folder.curve.exists()
    status = result.folder.read_status()
    assert (status.state, status.num_timesteps, status.cause) == ("interrupted", 256, "stopped by SIGTERM")


def test_a_signal_in_the_last_rollout_lets_the_run_finish(short_config: Configure) -> None:
    result = train(short_config(total_timesteps=256, eval_every=0), display=Killer(130, signal.SIGINT))
    assert result.signal_number is None
    assert result.folder.read_status().state == "finished"


def test_a_second_signal_stops_at_once_and_keeps_the_last_checkpoint(short_config: Configure, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"stopped at once; newest checkpoint: .*run/checkpoints/128.zip"):
        train(short_config(), display=Killer(140, signal.SIGINT, signal.SIGINT))
    folder = RunFolder(tmp_path / "run")
    assert folder.read_status().state == "interrupted"
    assert DistributionalPPO.load(folder.checkpoints / "128.zip").num_timesteps == 128
    assert not folder.is_in_use()


def test_stopping_at_once_before_the_first_checkpoint(short_config: Configure) -> None:
    with pytest.raises(KeyboardInterrupt, match="stopped at once; no checkpoint was saved yet"):
        train(short_config(), display=Killer(2, signal.SIGINT, signal.SIGINT))


@pytest.mark.usefixtures("toy_envs")
def test_divergence_is_recorded_with_its_cause(short_config: Configure, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="rewards"):
        train(short_config(env_id="toy_envs:ToyNan-v0", algo_kwargs={"n_steps": 64, "batch_size": 8}))
    status = RunFolder(tmp_path / "run").read_status()
    assert status.state == "diverged"
    assert "the environment returned non-finite rewards" in str(status.cause)


@pytest.mark.usefixtures("toy_envs")
def test_an_environment_that_fails_is_not_hidden(short_config: Configure, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the robot fell over"):
        train(short_config(env_id="toy_envs:ToyCrash-v0"))
    folder = RunFolder(tmp_path / "run")
    assert folder.read_status().state == "interrupted"
    assert folder.read_status().cause == "RuntimeError: the robot fell over"
    assert not folder.is_in_use()


@pytest.mark.usefixtures("toy_envs")
@pytest.mark.parametrize(
    "changes",
    [
        {"n_envs": 0},
        {"env_id": "CartPoel-v1"},
        {"env_id": "toy_envs:ToyUnboundedActions-v0"},
        {"algo_kwargs": {"gama": 1}},
        {"algo_kwargs": {"vgs_kwargs": {"beta": 3.0}}},
        {"on_change": "report", "change_kwargs": {"told": True}},
        {"on_change": "raise-noise", "optimizer": "adam"},
    ],
)
def test_what_is_refused_leaves_nothing(
    changes: dict[str, object], short_config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "tracking", lambda *_: pytest.fail("a run began at the tracker"))
    config = short_config(run_dir=str(tmp_path / "new" / "run"), **changes)
    with pytest.raises(UserInputError):
        train(config)
    assert list(tmp_path.iterdir()) == []


def test_a_run_does_not_write_into_another(short_config: Configure, tmp_path: Path) -> None:
    result = train(short_config(total_timesteps=128, eval_every=0))
    before = {path: path.stat().st_mtime_ns for path in result.folder.path.rglob("*")}
    with pytest.raises(RunFolderError, match="is not empty"):
        train(short_config())
    assert {path: path.stat().st_mtime_ns for path in result.folder.path.rglob("*")} == before


@pytest.mark.usefixtures("toy_envs")
@pytest.mark.parametrize("env_id", ["ToyImage-v0", "ToyMixed-v0"])
def test_image_and_dict_observations(env_id: str, short_config: Configure) -> None:
    config = short_config(
        env_id=f"toy_envs:{env_id}",
        normalize=True,
        total_timesteps=32,
        eval_every=16,
        eval_episodes=2,
        algo_kwargs={"n_steps": 8, "batch_size": 8, "n_epochs": 1},
    )
    result = train(config)
    assert result.folder.read_status().state == "finished"
    assert [evaluation.ep_lengths for evaluation in read_evaluations(result.folder.evaluations)] == [(8, 8), (8, 8)]


def test_a_continual_run_is_evaluated_on_the_task_that_it_has_just_trained(
    short_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Phases end after steps 250 and 500. The final evaluation leaves out the steps that fill the last rollout."""
    phases = []

    def watched(*args: Any, **kwargs: Any) -> Evaluation:
        phases.append(kwargs["phase"])
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(training, "evaluate", watched)
    kwargs = {"phase_steps": 250}
    config = short_config(env_id="ContinualCartPole-v0", env_kwargs=kwargs, total_timesteps=500, eval_every=128)
    result = train(config)
    assert result.num_timesteps == 512
    assert phases == [0, 1, 1, 1, 1]  # after 128, 256, 384 and 512 steps, and at the end
    assert json.loads(result.folder.config.read_text())["options"]["env_kwargs"] == kwargs


@pytest.mark.parametrize("env_id", ["LunarLander-v3", "Hopper-v5"])
def test_environments_of_the_extras(env_id: str, short_config: Configure) -> None:
    result = train(short_config(env_id=env_id, total_timesteps=256, n_envs=4))
    assert result.folder.read_status().state == "finished"
    assert result.final_evaluation is not None
    assert len(result.final_evaluation.rewards) == 4


def test_torch_threads_are_set(short_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(th, "set_num_threads", asked.append)
    train(replace(short_config(total_timesteps=1, eval_every=0), torch_threads=3))
    assert asked == [3]


def test_the_record_says_what_ran(short_config: Configure) -> None:
    result = train(short_config(total_timesteps=128, eval_every=0), command=["sb3-vgs-ppo", "train"])
    record = json.loads(result.folder.config.read_text())
    assert record["schema"] == 1
    assert record["command"] == ["sb3-vgs-ppo", "train"]
    assert record["options"]["device"] == "cpu"
    assert record["versions"]["torch"] == version("torch")
    assert record["parent"] is None


def test_the_record_names_the_preset_beside_its_options(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_record(folder, config_from_mapping({"preset": "continual"}, "test"), [])
    record = json.loads(folder.config.read_text())
    assert record["preset"] == "continual"
    assert record["options"]["on_change"] == "restart-head+reset-optimizer+raise-learning-rate"
    assert "preset" not in record["options"]


def test_plasticity_is_logged_and_changes_nothing(short_config: Configure, tmp_path: Path) -> None:
    rows, parameters = {}, {}
    for name, wanted in (("with", True), ("without", False)):
        config = short_config(run_dir=str(tmp_path / name), plasticity_metrics=wanted, eval_every=0)
        result = train(config)
        rows[name] = progress_of(result.folder.path)
        parameters[name] = parameters_of(result.folder.final_model)
    assert th.equal(parameters["with"], parameters["without"])
    logged = [{key for key, value in row.items() if key.startswith("plasticity/") and value} for row in rows["with"]]
    gates = {"plasticity/gate_saturation", "plasticity/gate_std"}
    assert {"plasticity/actor_effective_rank", "plasticity/logit_norm"} <= logged[0]
    assert [keys - logged[0] for keys in logged] == [set(), gates, gates, gates]  # there are none before the first step
    without = [{key: value for key, value in row.items() if key not in logged[1]} for row in rows["with"]]
    assert without == rows["without"]
