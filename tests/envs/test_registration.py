from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium as gym
import pytest

from sb3_vgs_ppo.envs import phase_length, phase_of, register_continual


@pytest.mark.parametrize(
    ("env_id", "base_id"),
    [
        ("ContinualCartPole-v0", "CartPole-v1"),
        ("ContinualLunarLander-v0", "LunarLander-v3"),
        ("ContinualHopper-v0", "Hopper-v5"),
    ],
)
def test_episodes_end_where_those_of_the_plain_environment_do(env_id: str, base_id: str) -> None:
    spec, base = gym.spec(env_id), gym.spec(base_id)
    assert (spec.max_episode_steps, spec.reward_threshold) == (base.max_episode_steps, base.reward_threshold)


def test_arguments_reach_the_wrapper_and_the_environment() -> None:
    env = gym.make("ContinualLunarLander-v0", gravity=-3.0, phase_steps=7, task_seed=2, change="physics")
    assert env.unwrapped.gravity == -3  # type: ignore[attr-defined]
    assert env.get_wrapper_attr("phase_steps") == 7


def test_an_environment_can_be_made_again_from_its_spec() -> None:
    env = gym.make("ContinualCartPole-v0", phase_steps=7, task_seed=2)
    assert env.spec is not None
    again = gym.make(env.spec)
    assert repr(again) == repr(env)
    assert again.get_wrapper_attr("phase_steps") == 7


def test_registering_twice_changes_nothing(recwarn: pytest.WarningsRecorder) -> None:
    before = gym.spec("ContinualCartPole-v0")
    register_continual()
    assert gym.spec("ContinualCartPole-v0") is before
    assert len(recwarn) == 0


def test_an_import_registers_and_brings_neither_torch_nor_engines() -> None:
    code = (
        "import sys, gymnasium as gym; env = gym.make('sb3_vgs_ppo.envs:ContinualCartPole-v0');"
        "heavy = {'torch', 'stable_baselines3', 'mujoco', 'Box2D', 'scipy', 'pandas'} & set(sys.modules);"
        "print(env.spec.id, sorted(heavy))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "ContinualCartPole-v0 []"


@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "length"),
    [
        ("ContinualCartPole-v0", {}, 40_000),
        ("sb3_vgs_ppo.envs:ContinualCartPole-v0", {}, 40_000),
        ("ContinualCartPole", {}, 40_000),
        ("ContinualHopper-v0", {"phase_steps": 1_000}, 1_000),
        ("ContinualHopper-v0", {"phase_steps": None}, None),
        ("CartPole-v1", {}, None),
        ("CartPole-v1", {"phase_steps": 5}, None),
        ("NoSuch-v0", {}, None),
        ("a b c", {}, None),
    ],
)
def test_length_of_a_phase(env_id: str, env_kwargs: dict[str, Any], length: int | None) -> None:
    assert phase_length(env_id, env_kwargs) == length


def test_phase_of_a_step() -> None:
    assert [phase_of(step, 10) for step in (0, 1, 10, 11, 20, 21)] == [0, 0, 0, 1, 1, 2]
    assert phase_of(10**9, None) == 0
