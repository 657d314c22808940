from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecEnv

from helpers import needs
from sb3_vgs_ppo.ppo.loading import load_checkpoint
from sb3_vgs_ppo.runs import calibration, training
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.environments import make_env, make_evaluation_env, make_training_env, policy_alias
from sb3_vgs_ppo.runs.training import train

pytestmark = needs("atari", "ale_py", "cv2")

SMALL_CNN = {"features_extractor_kwargs": {"features_dim": 32}}


def play(env: VecEnv, n_steps: int) -> list[tuple[np.ndarray, float, bool, list[float]]]:
    """:return: observations, rewards, ends, and returns of the games that ended, of random actions"""
    random = np.random.default_rng(0)
    steps = [(np.asarray(env.reset())[0], 0.0, False, [])]
    for _ in range(n_steps):
        observations, rewards, dones, infos = env.step([random.integers(env.action_space.n)])  # type: ignore[attr-defined]
        games = [info["episode"]["r"] for info in infos if "episode" in info]
        steps.append((np.asarray(observations)[0], float(rewards[0]), bool(dones[0]), games))
    return steps


def test_games_are_those_of_make_atari_env(tmp_path: Path) -> None:
    """Observations, clipped rewards, ends of lives and games, and the games' own returns."""
    ours = make_training_env("BreakoutNoFrameskip-v4", 1, 3, monitor_dir=tmp_path)
    theirs = make_atari_env("BreakoutNoFrameskip-v4", 1, seed=3)
    lives = games = 0
    for one, another in zip(play(ours, 400), play(theirs, 400), strict=True):
        np.testing.assert_array_equal(one[0], another[0])
        assert one[1:] == another[1:]
        lives, games = lives + one[2], games + len(one[3])
    assert lives > games > 0


def test_lengths_of_games_are_steps_of_the_agent(tmp_path: Path) -> None:
    env = make_training_env("ALE/Breakout-v5", 1, 0, monitor_dir=tmp_path)
    env.reset()
    lengths, since = [], 0
    for _ in range(420):
        *_, infos = env.step([0])  # type: ignore[arg-type]  # lives are lost
        since += 1
        if "episode" in infos[0]:
            lengths.append(infos[0]["episode"]["l"])
            assert lengths[-1] == since
            since = 0
    assert len(lengths) > 1


@pytest.mark.parametrize(
    ("env_kwargs", "frames"), [({}, 4), ({"frameskip": 2}, 2), ({"frameskip": 1, "repeat_action_probability": 0.0}, 1)]
)
def test_actions_last_for_as_many_frames_as_is_said(env_kwargs: dict[str, Any], frames: int, tmp_path: Path) -> None:
    env = make_training_env("ALE/Pong-v5", 1, 0, monitor_dir=tmp_path, env_kwargs=env_kwargs)
    env.reset()
    numbers = [env.step([0])[3][0]["frame_number"] for _ in range(3)]
    assert np.diff(numbers).tolist() == [frames] * 2


@pytest.mark.parametrize("env_kwargs", [{"obs_type": "ram"}, {"obs_type": "grayscale"}, {"continuous": True}])
def test_games_that_the_wrappers_do_not_fit_are_left_alone(env_kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = make_training_env("ALE/Pong-v5", 1, 0, monitor_dir=tmp_path, env_kwargs=env_kwargs)
    plain = gym.make("ALE/Pong-v5", **env_kwargs)
    assert env.observation_space == plain.observation_space
    env.reset()
    numbers = [env.step(np.array([plain.action_space.sample()]))[3][0]["frame_number"] for _ in range(2)]
    assert np.diff(numbers).tolist() == [4]


def test_a_game_is_trained_on(short_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "STEPS", 16)
    monkeypatch.setattr(training, "FINAL_EVALUATION_EPISODES", 2)
    config = short_config(
        env_id="ALE/Pong-v5",
        env_kwargs={"max_num_frames_per_episode": 160},
        frame_stack=4,
        total_timesteps=128,
        eval_every=0,
        checkpoint_every=0,
        algo_kwargs={"n_steps": 32, "batch_size": 32, "n_epochs": 1, "policy_kwargs": SMALL_CNN},
    )
    result = train(config)
    model = load_checkpoint(result.folder.final_model)
    assert model.observation_space == spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert isinstance(model.policy.features_extractor, NatureCNN)
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
    progress = pd.read_csv(result.folder.progress)
    losses = progress.filter(regex=r"^train/.*loss$")
    assert losses.shape == (2, 4)
    assert np.isfinite(losses.to_numpy()).all()
    assert progress["train/skipped_updates"].tolist() == [0, 0]
    assert progress["rollout/ep_len_mean"].iloc[-1] <= 160 / 4
    assert result.final_evaluation is not None
    assert all(np.isfinite(result.final_evaluation.rewards))


def test_evaluations_see_what_training_sees(tmp_path: Path) -> None:
    env = make_training_env("ALE/Pong-v5", 2, 0, monitor_dir=tmp_path, frame_stack=4)
    evaluation = make_evaluation_env("ALE/Pong-v5", 1, 0, env)
    np.testing.assert_array_equal(evaluation.reset()[0], env.reset()[0])  # type: ignore[index]
    assert policy_alias(env.observation_space) == "CnnPolicy"
    assert env.observation_space.shape == (84, 84, 4)


def test_other_environments_are_left_alone() -> None:
    assert isinstance(make_env("CartPole-v1", {}), gym.wrappers.TimeLimit)
