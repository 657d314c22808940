from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from helpers import needs
from sb3_vgs_ppo.checkpoint import dump_tensors, load_tensors
from sb3_vgs_ppo.runs.config import VecEnvName
from sb3_vgs_ppo.runs.env_state import (
    can_snapshot,
    end_unless_exact,
    environment_states,
    load_environment_states,
    reset_seed,
)
from sb3_vgs_ppo.runs.environments import make_training_env

CLASSIC = ["Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]
MUJOCO = [
    *("Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum"),
    *("Pusher", "Reacher", "Swimmer", "Walker2d"),
]
ATARI = needs("atari", "ale_py", "cv2")


def make(
    env_id: str, tmp_path: Path, seed: int, vec_env: VecEnvName = "dummy", frame_stack: int = 1, **env_kwargs: Any
) -> VecEnv:
    options: dict[str, Any] = {"env_kwargs": env_kwargs, "vec_env": vec_env, "frame_stack": frame_stack}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_training_env(env_id, 2, seed, monitor_dir=tmp_path / f"monitor-{seed}", **options)


def play(env: VecEnv, n_steps: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]]:
    """:return: observations, rewards, ends, and returns of finished episodes of every step"""
    random = np.random.default_rng(seed)
    steps = []
    for _ in range(n_steps):
        space = env.action_space
        if isinstance(space, gym.spaces.Discrete):
            actions = random.integers(space.n, size=2)
        else:
            actions = random.uniform(space.low, space.high, size=(2, *space.shape)).astype(space.dtype)
        observations, rewards, dones, infos = env.step(actions)
        steps.append((observations, rewards, dones, [info["episode"]["r"] for info in infos if "episode" in info]))
    return steps


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        *((name, {}) for name in (*CLASSIC, *(f"{name}-v5" for name in MUJOCO))),
        ("Pendulum-v1", {"frame_stack": 3}),
        ("Ant-v5", {"vec_env": "subproc"}),
        pytest.param("SpaceInvadersNoFrameskip-v4", {}, marks=ATARI),
        pytest.param(
            "ALE/Breakout-v5",
            {"vec_env": "subproc", "frame_stack": 4, "repeat_action_probability": 0.9},
            marks=ATARI,
        ),
    ],
)
def test_a_snapshot_goes_on_exactly(env_id: str, options: dict[str, Any], tmp_path: Path) -> None:
    env = make(env_id, tmp_path, seed=0, **options)
    env.reset()
    play(env, 37, seed=1)
    states = load_tensors(dump_tensors(environment_states(env)), "file", "member")
    other = make(env_id, tmp_path, seed=5, **options)
    load_environment_states(other, states, seed=None)
    going_on = play(env, 250, seed=2)  # over the end of most episodes: the next one starts from the same generator
    resumed = play(other, 250, seed=2)
    for one, another in zip(going_on, resumed, strict=True):
        for left, right in zip(one, another, strict=True):
            np.testing.assert_array_equal(left, right)
    env.close()
    other.close()
    too_long = {"HalfCheetah-v5", "HumanoidStandup-v5", "MountainCarContinuous-v0", "Swimmer-v5", "Acrobot-v1"}
    if env_id not in {*too_long, "SpaceInvadersNoFrameskip-v4", "ALE/Breakout-v5"}:
        assert any(returns for *_, returns in going_on)


@pytest.mark.parametrize(
    ("env_id", "vec_env"), [("LunarLander-v3", "dummy"), ("LunarLander-v3", "subproc"), ("BipedalWalker-v3", "dummy")]
)
def test_where_a_snapshot_is_not_exact_new_episodes_begin(env_id: str, vec_env: VecEnvName, tmp_path: Path) -> None:
    env = make(env_id, tmp_path, seed=0, vec_env=vec_env)
    assert not can_snapshot(env)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=16, n_epochs=1, device="cpu").learn(16)
    seed = end_unless_exact(model, run_seed=3)
    assert seed == reset_seed(3, 16) != reset_seed(3, 32)
    assert model._last_episode_starts.tolist() == [True, True]  # type: ignore[union-attr]
    first, _ = gym.make(env_id).reset(seed=seed + 1)
    np.testing.assert_array_equal(model._last_obs[1], first)  # type: ignore[index]
    other = make(env_id, tmp_path, seed=5, vec_env=vec_env)
    other.reset()
    load_environment_states(other, environment_states(env), seed)
    for one, another in zip(play(env, 200, seed=2), play(other, 200, seed=2), strict=True):
        np.testing.assert_array_equal(one[0], another[0])
    env.close()
    other.close()


def test_an_episode_that_is_cut_off_keeps_its_steps_in_the_monitor_file(tmp_path: Path) -> None:
    env = make("LunarLander-v3", tmp_path, seed=0)
    model = PPO("MlpPolicy", env, n_steps=100, batch_size=50, n_epochs=1, device="cpu").learn(200)
    end_unless_exact(model, run_seed=3)
    env.close()
    for path in (tmp_path / "monitor-0").iterdir():
        *finished, cut = [row.split(",") for row in path.read_text().splitlines()[2:]]
        assert cut[0] == "nan"
        assert all(row[0] != "nan" for row in finished)
        assert sum(int(row[1]) for row in (*finished, cut)) == 100


@pytest.mark.parametrize(
    ("env_id", "change"),
    [
        ("ContinualCartPole-v0", "observation_rotation"),
        ("ContinualCartPole-v0", "physics"),
        ("ContinualHopper-v0", "physics"),
        ("ContinualHopper-v0", "action_permutation"),
    ],
)
def test_a_snapshot_knows_the_task_and_when_the_next_begins(env_id: str, change: str, tmp_path: Path) -> None:
    env = make(env_id, tmp_path, seed=0, change=change, phase_steps=60)
    env.reset()
    play(env, 37, seed=1)  # phases of 30 steps for each of the two environments
    states = load_tensors(dump_tensors(environment_states(env)), "file", "member")
    other = make(env_id, tmp_path, seed=5, change=change, phase_steps=60)
    load_environment_states(other, states, seed=None)
    assert other.get_attr("task_seed") == [0, 0]
    assert other.get_attr("phase") == [1, 1]
    for one, another in zip(play(env, 60, seed=2), play(other, 60, seed=2), strict=True):
        for left, right in zip(one, another, strict=True):
            np.testing.assert_array_equal(left, right)
    assert env.get_attr("phase") == other.get_attr("phase") == [3, 3]
    assert env.get_attr("steps_in_phase") == other.get_attr("steps_in_phase") == [7, 7]


@pytest.mark.parametrize("change", ["observation_rotation", "action_permutation", "physics"])
def test_the_phase_goes_on_where_new_episodes_begin(change: str, tmp_path: Path) -> None:
    kwargs = {"change": change, "phase_steps": 20}
    env = make("ContinualLunarLander-v0", tmp_path, seed=0, **kwargs)
    assert not can_snapshot(env)
    model = PPO("MlpPolicy", env, n_steps=12, batch_size=24, n_epochs=1, device="cpu").learn(24)
    seed = end_unless_exact(model, run_seed=3)
    assert seed is not None
    states = [environment["layers"] for environment in environment_states(env)]
    assert {"task_seed": 0, "phase": 1, "steps_in_phase": 2} in states[1]
    frozen = gym.make("ContinualLunarLander-v0", **{**kwargs, "phase_steps": None, "task_seed": 0})
    frozen.get_wrapper_attr("set_phase")(1)
    np.testing.assert_array_equal(model._last_obs[1], frozen.reset(seed=seed + 1)[0])  # type: ignore[index]
    other = make("ContinualLunarLander-v0", tmp_path, seed=5, **kwargs)
    load_environment_states(other, environment_states(env), seed)
    for left, right in zip(play(env, 60, seed=2), play(other, 60, seed=2), strict=True):
        np.testing.assert_array_equal(left[0], right[0])
    assert env.get_attr("phase") == other.get_attr("phase") == [7, 7]


def test_a_wrapper_that_is_not_known_prevents_a_snapshot(tmp_path: Path) -> None:
    env = make("CartPole-v1", tmp_path, seed=0)
    assert can_snapshot(env)
    monitor = env.unwrapped.envs[0]  # type: ignore[attr-defined]
    monitor.env = gym.wrappers.TransformReward(monitor.env, lambda reward: reward)
    assert not can_snapshot(env)


@pytest.mark.parametrize(("module", "known"), [("rl_zoo3.gym_patches", True), ("mine", False)])
def test_the_time_limit_of_rl_zoo3_is_known(module: str, known: bool, tmp_path: Path) -> None:
    """Importing rl_zoo3 replaces gymnasium's class by one that counts in the same attribute."""
    env = make("CartPole-v1", tmp_path, seed=0)
    monitor = env.unwrapped.envs[0]  # type: ignore[attr-defined]
    replaced = type("PatchedTimeLimit", (gym.wrappers.TimeLimit,), {"__module__": module})
    monitor.env = replaced(monitor.env.env, max_episode_steps=500)
    assert can_snapshot(env) is known


def test_what_can_go_on_is_left_alone(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", make("CartPole-v1", tmp_path, 0), n_steps=8, batch_size=16, n_epochs=1).learn(16)
    before = model._last_obs
    assert end_unless_exact(model, run_seed=3) is None
    assert model._last_obs is before
