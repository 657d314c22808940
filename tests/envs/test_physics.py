from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_vgs_ppo.envs import ContinualEnv
from sb3_vgs_ppo.envs.physics import CartPolePhysics, LunarLanderPhysics, MujocoPhysics


def quantities(env: gym.Env[Any, Any]) -> dict[str, float]:
    """:return: what the physics changes, read from the place where the environment reads it"""
    bare: Any = env.unwrapped
    if hasattr(bare, "model"):
        return {"gravity": bare.model.opt.gravity[2], "friction": bare.model.geom_friction[1, 0]}
    if hasattr(bare, "world"):
        return {"gravity": bare.world.gravity[1]}
    return {"gravity": bare.gravity, "length": bare.length}


@pytest.mark.parametrize(
    ("env_id", "ranges"),
    [
        ("CartPole-v1", CartPolePhysics.ranges),
        ("LunarLander-v3", LunarLanderPhysics.ranges),
        ("Hopper-v5", MujocoPhysics.ranges),
    ],
)
def test_factors_are_log_uniform_in_their_ranges(env_id: str, ranges: dict[str, tuple[float, float]]) -> None:
    env = ContinualEnv(gym.make(env_id), "physics", None, task_seed=0)
    env.reset(seed=0)
    own = quantities(env)
    drawn = []
    for phase in range(1, 600):
        env.set_phase(phase)
        drawn.append([value / own[name] for name, value in quantities(env).items()])
    logs = np.log(drawn)
    low, high = np.log(list(ranges.values())).T
    assert (logs >= low - 1e-6).all()  # Box2D keeps single precision
    assert (logs <= high + 1e-6).all()
    np.testing.assert_allclose(logs.mean(axis=0), (low + high) / 2, atol=0.15)
    np.testing.assert_allclose(logs.std(axis=0), (high - low) / np.sqrt(12), rtol=0.1)
    env.set_phase(0)
    assert quantities(env) == own


@pytest.mark.parametrize("env_id", ["CartPole-v1", "LunarLander-v3", "Hopper-v5"])
def test_a_new_gravity_acts_from_the_next_step_on_and_in_later_episodes(env_id: str) -> None:
    """Beside it the plain environment, which equals it as long as the phase is 0."""
    changing, plain = ContinualEnv(gym.make(env_id), "physics", 5, task_seed=1), gym.make(env_id)
    action = plain.action_space.sample()
    for env in (changing, plain):
        env.reset(seed=0)
    steps = [(changing.step(action)[0], plain.step(action)[0]) for _ in range(7)]
    assert [np.array_equal(*pair) for pair in steps] == [True] * 5 + [False] * 2
    if env_id == "LunarLander-v3":
        gravity = quantities(changing)["gravity"]
        changing.reset()
        assert quantities(changing)["gravity"] == gravity != -10


def test_the_pole_keeps_its_mass() -> None:
    env = ContinualEnv(gym.make("CartPole-v1"), "physics", None, task_seed=0)
    env.set_phase(2)
    bare: Any = env.unwrapped
    assert bare.length != 0.5
    assert (bare.polemass_length, bare.total_mass) == (0.1 * bare.length, 1.1)
