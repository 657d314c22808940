"""The baseline of studies is SB3's PPO with Adam, bit for bit, through the whole of ``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vgs_ppo.change import SelfStartingChart
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.config_file import config_from_mapping
from sb3_vgs_ppo.runs.environments import make_training_env
from sb3_vgs_ppo.runs.training import train


@pytest.mark.parametrize("normalize", [False, True])
def test_scalar_adam_off_equals_sb3_ppo(normalize: bool, tmp_path: Path) -> None:
    config = TrainConfig(
        env_id="Pendulum-v1",
        total_timesteps=512,
        n_envs=2,
        seed=4,
        vgs_version="off",
        optimizer="adam",
        value_head="scalar",
        algo_kwargs={"n_steps": 128, "n_epochs": 2, "gamma": 0.9},
        normalize=normalize,
        eval_every=256,
        eval_episodes=1,
        run_dir=str(tmp_path / "run"),
        device="cpu",
    )
    train(config)
    ours = DistributionalPPO.load(tmp_path / "run" / "final_model.zip")
    env = make_training_env("Pendulum-v1", 2, 4, monitor_dir=tmp_path / "sb3", normalize=normalize, gamma=0.9)
    assert isinstance(env, VecNormalize) == normalize
    theirs = PPO("MlpPolicy", env, n_steps=128, n_epochs=2, gamma=0.9, seed=4, device="cpu").learn(512)
    expected = theirs.policy.state_dict()
    assert all(th.equal(tensor, expected[name]) for name, tensor in ours.policy.state_dict().items())


def test_the_preset_continual_is_sb3_ppo_until_it_notices_a_change(tmp_path: Path) -> None:
    options: dict[str, Any] = {"n_steps": 64, "n_epochs": 2}
    given: dict[str, Any] = {"preset": "continual", "n_envs": 2, "total_timesteps": 16 * 128, "seed": 1}
    given |= {"algo_kwargs": options, "eval_every": 0, "run_dir": str(tmp_path / "run")}
    config = config_from_mapping(given, "test")
    train(config)
    progress = pd.read_csv(tmp_path / "run" / "progress.csv")
    assert len(progress) > SelfStartingChart().min_history  # an alarm was possible
    assert progress["change/alarms"].iloc[-1] == 0
    ours = DistributionalPPO.load(tmp_path / "run" / "final_model.zip")
    env = make_training_env(config.env_id, 2, 1, monitor_dir=tmp_path / "sb3")
    expected = PPO("MlpPolicy", env, **options, seed=1, device="cpu").learn(16 * 128).policy.state_dict()
    assert all(th.equal(tensor, expected[name]) for name, tensor in ours.policy.state_dict().items())
