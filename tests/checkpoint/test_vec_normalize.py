"""Statistics of VecNormalize survive the way through a checkpoint, without pickle."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_vgs_ppo.checkpoint import dump_tensors, load_tensors
from sb3_vgs_ppo.checkpoint.vec_normalize import load_vec_normalize_state, vec_normalize_state
from sb3_vgs_ppo.errors import CheckpointError


class DictEnv(gym.Env[Any, Any]):
    """Observations of two keys, one of which can be normalized."""

    observation_space = spaces.Dict({"a": spaces.Box(-5, 5, (2,), np.float32), "b": spaces.Discrete(3)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.5, False, False, {}


def stepped(env: VecNormalize, n_steps: int = 20) -> VecNormalize:
    env.seed(3)
    env.action_space.seed(3)
    env.reset()
    for _ in range(n_steps):
        env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))
    return env


def pendulum(n_envs: int = 2, **kwargs: Any) -> VecNormalize:
    return VecNormalize(make_vec_env("Pendulum-v1", n_envs=n_envs), **kwargs)


def through_bytes(env: VecNormalize) -> dict[str, Any]:
    return load_tensors(dump_tensors(vec_normalize_state(env)), "file", "member")


def test_vector_observations_round_trip_exactly() -> None:
    env = stepped(pendulum(gamma=0.9, clip_obs=3.0))
    fresh = pendulum()
    load_vec_normalize_state(fresh, through_bytes(env), "file")
    raw = np.array([[0.5, -0.3, 4.0]])
    assert np.array_equal(fresh.normalize_obs(raw), env.normalize_obs(raw))
    assert np.array_equal(fresh.normalize_reward(np.array([-3.0])), env.normalize_reward(np.array([-3.0])))
    assert (fresh.gamma, fresh.clip_obs) == (0.9, 3.0)
    assert np.array_equal(fresh.returns, env.returns)
    assert fresh.obs_rms.count == env.obs_rms.count > 40


def test_dict_observations_round_trip_exactly() -> None:
    def make() -> VecNormalize:
        return VecNormalize(DummyVecEnv([DictEnv]), norm_obs_keys=["a"])

    env, fresh = stepped(make()), make()
    load_vec_normalize_state(fresh, through_bytes(env), "file")
    assert np.array_equal(fresh.obs_rms["a"].var, env.obs_rms["a"].var)
    assert fresh.norm_obs_keys == ["a"]


def test_another_number_of_environments_keeps_its_own_returns() -> None:
    fresh = pendulum(n_envs=3)
    load_vec_normalize_state(fresh, through_bytes(stepped(pendulum(n_envs=2))), "file")
    assert np.array_equal(fresh.returns, np.zeros(3))
    assert fresh.obs_rms.count > 40


def test_without_observations() -> None:
    env = stepped(pendulum(norm_obs=False))
    fresh = pendulum()
    load_vec_normalize_state(fresh, through_bytes(env), "file")
    assert not fresh.norm_obs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("ret_rms"), "ret_rms"),
        (lambda state: state.pop("clip_obs"), "clip_obs"),
        (lambda state: state.update(obs_rms=None), "vec_normalize.pt"),
        (lambda state: state["obs_rms"].update(mean=state["obs_rms"]["mean"][:2]), r"obs_rms: mean has shape \(2,\)"),
        (lambda state: state.update(returns="many"), "'str'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change: Any, message: str) -> None:
    state = through_bytes(stepped(pendulum()))
    change(state)
    fresh = pendulum()
    with pytest.raises(CheckpointError, match=message):
        load_vec_normalize_state(fresh, state, "file.zip")
    assert np.array_equal(fresh.obs_rms.mean, np.zeros(3))
    assert fresh.obs_rms.count == pytest.approx(1e-4)
