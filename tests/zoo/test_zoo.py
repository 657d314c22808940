"""``dppo`` in the installed rl_zoo3: trained, enjoyed, plotted and searched through the zoo's own commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import optuna
import pytest
import rl_zoo3.enjoy
import rl_zoo3.exp_manager
import torch as th
import yaml
from rl_zoo3.plots import plot_train

from sb3_vgs_ppo.cli import zoo
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.zoo import HYPERPARAMS
from sb3_vgs_ppo.zoo.experiment import classes_for_names
from sb3_vgs_ppo.zoo.search_space import convert_dppo_params, sample_dppo_params

Command = Callable[..., int]

SMALL_TRIAL = {
    "batch_size_pow": 5,
    "n_steps_pow": 6,
    "one_minus_gamma": 0.01,
    "one_minus_gae_lambda": 0.05,
    "learning_rate": 1e-3,
    "ent_coef": 1e-3,
    "clip_range": 0.2,
    "n_epochs": 1,
    "max_grad_norm": 0.5,
    "net_arch": "tiny",
    "activation_fn": "relu",
    "value_head": "categorical",
    "optimizer": "adam",
    "vgs_version": "4.0",
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """:return: runs one of our console scripts in an empty folder"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")

    def command(entry: Callable[[], int], *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["sb3-vgs-zoo", *arguments])
        return entry()

    return command


def refuse_eval(text: str) -> None:
    raise AssertionError(f"evaluated: {text}")


def test_an_agent_is_trained_enjoyed_and_plotted(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rl_zoo3.exp_manager, "eval", refuse_eval, raising=False)
    training = ["--env", "CartPole-v1", "-n", "512", "--eval-freq", "256", "--eval-episodes", "1", "--seed", "3"]
    assert run(zoo.train, *training, "--num-threads", "1") == 0
    folder = tmp_path / "logs" / "dppo" / "CartPole-v1_1"
    model = DistributionalPPO.load(folder / "CartPole-v1.zip")
    assert type(model.policy.optimizer) is AdaptiveUPGD
    assert (model.num_timesteps, model.n_envs, model.n_steps, model.gamma) == (512, 8, 32, 0.98)
    assert model.vgs is not None
    assert model.vgs.state_dict()["step_count"] == 2 * 20  # rollouts of 256 steps, one minibatch each, 20 epochs
    assert "lin_0.001" in (folder / "CartPole-v1" / "config.yml").read_text()

    assert run(zoo.enjoy, "--env", "CartPole-v1", "--no-render", "-n", "300", "--deterministic") == 0
    assert "Episode Reward" in capsys.readouterr().out

    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    monkeypatch.setattr(sys, "argv", ["plot", "-a", "dppo", "-e", "CartPole-v1", "-f", "logs", "-w", "1"])
    plot_train()


def test_a_trial_of_a_search_is_run_and_trained_anew(run: Command, tmp_path: Path) -> None:
    journal = str(tmp_path / "search.log")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(journal))
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    study.enqueue_trial(SMALL_TRIAL)
    common = ["--env", "CartPole-v1", "-n", "128", "--study-name", "s", "--storage", journal, "--seed", "1"]
    search = ["-optimize", "--n-trials", "1", "--n-evaluations", "1", "--eval-episodes", "1", "--no-optim-plots"]
    assert run(zoo.train, *common, *search) == 0
    trial = optuna.load_study(study_name="s", storage=storage).trials[0]
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.params == SMALL_TRIAL
    study.enqueue_trial({**SMALL_TRIAL, "vgs_version": "off"})
    assert run(zoo.train, *common, *search) == 0
    # The zoo takes trial 0 for none, so the second is trained
    assert run(zoo.train, *common, "--trial-id", "1", "--eval-freq", "-1") == 0
    model = DistributionalPPO.load(next(tmp_path.glob("logs/dppo/*/CartPole-v1.zip")))
    assert model.vgs is None
    assert model.policy.value_head == "categorical"
    assert type(model.policy.optimizer) is th.optim.Adam
    assert model.n_steps == 64


class TestSearchSpace:
    def test_a_stored_trial_gives_the_arguments_that_were_sampled(self) -> None:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(20):
            trial = study.ask()
            sampled = sample_dppo_params(trial, 1, 1, {})
            assert convert_dppo_params(trial.params) == sampled

    def test_every_choice_of_ours_makes_an_agent(self) -> None:
        for k, head in enumerate(("quantile", "categorical", "scalar")):
            trial = {**SMALL_TRIAL, "value_head": head, "vgs_version": ("off", "3.0", "4.0")[k]}
            trial["optimizer"] = ("adaptive-upgd", "adam", "adaptive-upgd")[k]
            model = DistributionalPPO("MlpPolicy", "CartPole-v1", **convert_dppo_params(trial))
            assert model.policy.value_head == head
            assert model.vgs_version == (None, "3.0", "4.0")[k]


class TestHyperparameters:
    def test_nothing_would_be_evaluated(self) -> None:
        """What the zoo evaluates are strings in these places."""
        for env_id, hyperparams in yaml.safe_load(HYPERPARAMS.read_text()).items():
            for key in ("policy_kwargs", "normalize", "monitor_kwargs", "replay_buffer_kwargs"):
                assert not isinstance(hyperparams.get(key), str), (env_id, key)

    def test_every_environment_exists_and_its_arguments_are_known(self) -> None:
        by_the_zoo = {"n_envs", "n_timesteps", "normalize", "frame_stack", "env_wrapper", "policy"}
        known = set(DistributionalPPO.__init__.__kwdefaults__) | set(DistributionalPPO.__init__.__code__.co_varnames)
        for env_id, hyperparams in yaml.safe_load(HYPERPARAMS.read_text()).items():
            if env_id not in ("default", "atari"):
                assert env_id in gym.registry, env_id
            assert hyperparams.keys() - by_the_zoo <= known, env_id
            assert all(not isinstance(v, str) or v.startswith("lin_") for k, v in hyperparams.items() if k != "policy")

    def test_classes_are_named(self) -> None:
        named = {"activation_fn": "relu", "optimizer_class": "adam", "net_arch": [8]}
        expected = {"activation_fn": th.nn.ReLU, "optimizer_class": th.optim.Adam, "net_arch": [8]}
        assert classes_for_names(named) == expected
        assert named["activation_fn"] == "relu"
        with pytest.raises(UserInputError, match="policy_kwargs: activation_fn 'rleu'; did you mean 'relu'"):
            classes_for_names({"activation_fn": "rleu"})


def test_without_the_zoo_there_is_one_line(tmp_path: Path) -> None:
    code = "import sys; sys.modules['rl_zoo3'] = None\nfrom sb3_vgs_ppo.cli.zoo import train\nsys.exit(train())\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == 'error: rl_zoo3 is not installed; remedy: pip install "sb3-vgs-ppo[zoo]"\n'
