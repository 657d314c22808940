"""Agents that are told of every change: the yardstick of comparisons."""

from __future__ import annotations

from typing import Any

import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_vgs_ppo.change import OracleCallback, RestartHead, make_change_callback
from sb3_vgs_ppo.checkpoint import dump_tensors
from sb3_vgs_ppo.envs import ContinualEnv
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}, "seed": 3}


def changing_env(phase_steps: int = 40) -> VecEnv:
    """Rollouts of 16 steps each: with 40 steps to a phase, phases begin in rollouts 3, 5, 8 and 10."""
    wrap: dict[str, Any] = {"change": "observation_rotation", "phase_steps": phase_steps, "task_seed": 1}
    return make_vec_env("CartPole-v1", 2, seed=0, wrapper_class=ContinualEnv, wrapper_kwargs=wrap)


@pytest.mark.parametrize("algorithm", [PPO, DistributionalPPO])
def test_every_change_and_nothing_else_is_answered(algorithm: type[Any]) -> None:
    callback = OracleCallback([RestartHead()])
    algorithm("MlpPolicy", changing_env(), **SMALL).learn(32 * 10, callback=callback)
    assert [alarm.step // 32 for alarm in callback.alarms] == [3, 5, 8, 10]
    assert {tuple(alarm.responses) for alarm in callback.alarms} == {("restart-head",)}


def test_what_was_seen_of_the_phases_is_saved() -> None:
    """Saved in the phase of rollouts 3 and 4; rollout 5 begins another, which would not be seen without a phase."""
    first, model = OracleCallback(), PPO("MlpPolicy", changing_env(), **SMALL)
    model.learn(32 * 4, callback=first)
    second = OracleCallback()
    second.load_state_dict(first.state_dict())
    assert dump_tensors(first.state_dict()) == dump_tensors(second.state_dict())
    model.learn(32, reset_num_timesteps=False, callback=second)
    assert [alarm.step // 32 for alarm in second.alarms] == [3, 5]


def test_an_environment_without_phases_is_refused() -> None:
    model = PPO("MlpPolicy", make_vec_env("CartPole-v1", 1), **SMALL)
    with pytest.raises(UserInputError, match=r"no attribute 'phase'; remedy: .* ContinualCartPole-v0"):
        model.learn(16, callback=OracleCallback())


@pytest.mark.parametrize(("kwargs", "expected"), [({"told": True}, True), ({"told": False}, False), ({}, False)])
def test_an_option_tells_the_agent(kwargs: dict[str, Any], expected: bool) -> None:
    callback = make_change_callback("restart-network", kwargs)
    assert isinstance(callback, OracleCallback) == expected


def test_the_option_is_true_or_false() -> None:
    with pytest.raises(UserInputError, match="told='yes' is not true or false"):
        make_change_callback("report", {"told": "yes"})
    with pytest.raises(UserInputError, match="'told': on_change 'none' has no such argument"):
        make_change_callback("none", {"told": True})
