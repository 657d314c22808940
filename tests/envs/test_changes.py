from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_vgs_ppo.envs import CHANGES
from sb3_vgs_ppo.envs.changes import Change, orthogonal_matrix
from sb3_vgs_ppo.errors import UserInputError


class Still(gym.Env[Any, Any]):
    """Has spaces, and nothing else."""

    def __init__(self, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        self.observation_space = observations
        self.action_space = actions


VECTOR = spaces.Box(np.array([-1, 0, 5], np.float32), np.array([1, 2, 6], np.float32))
TWO = spaces.Discrete(2)
TORQUES = spaces.Box(-2, 2, (3,), np.float32)


def make(name: str, observations: spaces.Space[Any] = VECTOR, actions: spaces.Space[Any] = TWO) -> Change:
    return CHANGES[name](Still(observations, actions))


def test_a_rotation_keeps_lengths_and_angles_and_moves_every_entry() -> None:
    change = make("observation_rotation")
    change.enter(task_seed=3, phase=1)
    rows = np.stack([change.observation(row) for row in np.eye(3, dtype=np.float32)])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-6)
    assert np.abs(rows).min() > 0.01


def test_rotations_are_uniform() -> None:
    """Without the correction of signs, the first entry of QR is never positive."""
    random = np.random.default_rng(0)
    matrices = np.stack([orthogonal_matrix(random, 3) for _ in range(4000)])
    np.testing.assert_allclose(matrices.mean(axis=0), np.zeros((3, 3)), atol=0.04)  # sd of the mean: 0.009
    np.testing.assert_allclose((matrices**2).mean(axis=0), np.full((3, 3), 1 / 3), atol=0.03)
    assert abs((np.linalg.det(matrices) > 0).mean() - 0.5) < 0.04


@pytest.mark.parametrize("name", ["observation_rotation", "observation_permutation"])
def test_every_changed_observation_lies_in_its_space(name: str) -> None:
    change = make(name)
    VECTOR.seed(0)
    for phase in range(20):
        change.enter(0, phase)
        assert change.observation(VECTOR.sample()) in change.observation_space


def test_bounds_of_permuted_observations_hold_for_every_place() -> None:
    space = make("observation_permutation").observation_space
    assert space == spaces.Box(-1, 6, (3,), np.float32)


def test_permuted_observations_have_the_same_entries() -> None:
    change = make("observation_permutation")
    seen = set()
    for phase in range(1, 60):
        change.enter(0, phase)
        entries = tuple(change.observation(np.array([10, 20, 30])).tolist())
        assert sorted(entries) == [10, 20, 30]
        seen.add(entries)
    assert len(seen) == 6


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.Discrete(4, start=5)])
def test_discrete_actions_swap_their_effects(space: spaces.Discrete) -> None:
    change = make("action_permutation", actions=space)
    actions = list(range(int(space.start), int(space.start) + 4))
    seen = set()
    for phase in range(1, 200):
        change.enter(7, phase)
        effects = [int(change.action(np.int64(action))) for action in actions]
        assert sorted(effects) == actions
        seen.add(tuple(effects))
    assert len(seen) == 24


def test_continuous_actions_swap_dimensions_and_directions() -> None:
    space = spaces.Box(-2, 2, (2,), np.float32)
    change = make("action_permutation", actions=space)
    seen = set()
    for phase in range(1, 60):
        change.enter(7, phase)
        effect = change.action(np.array([0.25, 1.5], np.float32))
        assert effect in space
        assert sorted(np.abs(effect)) == [0.25, 1.5]
        seen.add(tuple(effect.tolist()))
    assert len(seen) == 2 * 4


def test_one_continuous_action_changes_its_direction() -> None:
    change = make("action_permutation", actions=spaces.Box(-2, 2, (1,), np.float32))
    change.enter(0, 1)
    assert change.action(np.array([1.5], np.float32)).tolist() == [-1.5]


@pytest.mark.parametrize("name", ["observation_permutation", "action_permutation"])
def test_a_permutation_differs_from_that_of_the_phase_before(name: str) -> None:
    change = make(name, observations=spaces.Box(0, 1, (2,), np.float32))
    effects = []
    for phase in range(8):
        change.enter(0, phase)
        pair = change.observation(np.arange(2)) if name.startswith("observation") else map(change.action, range(2))
        effects.append([int(each) for each in pair])
    assert effects == [[0, 1], [1, 0]] * 4


@pytest.mark.parametrize("name", ["observation_rotation", "observation_permutation", "action_permutation"])
def test_phase_0_is_the_plain_task_again(name: str) -> None:
    change = make(name, actions=TORQUES)
    observation, action = VECTOR.sample(), TORQUES.sample()
    change.enter(0, 3)
    assert not (
        np.array_equal(change.observation(observation), observation) and (change.action(action) == action).all()
    )
    change.enter(0, 0)
    np.testing.assert_array_equal(change.observation(observation), observation)
    np.testing.assert_array_equal(change.action(action), action)


@pytest.mark.parametrize(
    ("name", "observations", "actions", "message"),
    [
        ("observation_rotation", spaces.Discrete(3), TWO, r"no vector of two or more numbers; remedy: .*Flatten"),
        ("observation_rotation", spaces.Box(0, 1, (2, 2)), TWO, "no vector of two or more numbers"),
        ("observation_rotation", spaces.Box(0, 1, (1,)), TWO, "no vector of two or more numbers"),
        ("observation_rotation", spaces.Box(0, 9, (3,), np.uint8), TWO, "remedy: observation_permutation"),
        ("observation_permutation", spaces.Discrete(3), TWO, "no vector of two or more numbers"),
        ("action_permutation", VECTOR, spaces.Discrete(1), "no actions that can be swapped; remedy: Discrete with two"),
        ("action_permutation", VECTOR, spaces.MultiBinary(3), "no actions that can be swapped"),
        ("action_permutation", VECTOR, spaces.Box(0, 1, (3,)), "no actions that can be swapped"),
        ("action_permutation", VECTOR, spaces.Box(-np.array([1, 2]), np.array([1, 2]), dtype=int), "-high and high"),
        ("physics", VECTOR, TWO, r"physics: that of Still is not known; remedy: CartPole, LunarLander"),
    ],
)
def test_what_an_environment_does_not_allow_is_refused(
    name: str, observations: spaces.Space[Any], actions: spaces.Space[Any], message: str
) -> None:
    with pytest.raises(UserInputError, match=message):
        make(name, observations, actions)
