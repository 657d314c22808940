from __future__ import annotations

from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3
from stable_baselines3.common.env_util import make_vec_env

from sb3_vgs_ppo.envs import CHANGES, ContinualEnv
from sb3_vgs_ppo.errors import UserInputError

IDS = ["ContinualCartPole-v0", "ContinualLunarLander-v0", "ContinualHopper-v0"]


def make(phase_steps: int | None = 4, task_seed: int | None = 0, change: str = "observation_rotation") -> ContinualEnv:
    return ContinualEnv(gym.make("CartPole-v1"), change, phase_steps, task_seed)


def play(env: gym.Env[Any, Any], n_steps: int) -> list[tuple[np.ndarray, int]]:
    """:return: observation and phase of every step; episodes begin where others end"""
    steps = []
    for number in range(n_steps):
        observation, _, terminated, truncated, info = env.step(number // 2 % 2)
        steps.append((observation, info["phase"]))
        if terminated or truncated:
            env.reset()
    return steps


def test_the_step_that_completes_a_phase_returns_an_observation_of_the_next() -> None:
    changing, plain = make(phase_steps=4, task_seed=5), gym.make("CartPole-v1")
    first, info = changing.reset(seed=1)
    np.testing.assert_array_equal(first, plain.reset(seed=1)[0])
    assert info["phase"] == 0
    seen, expected = play(changing, 9), play_plain(plain, 9)
    assert [phase for _, phase in seen] == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    for (observation, phase), raw in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(observation, seen_in(phase, raw, task_seed=5))


def play_plain(env: gym.Env[Any, Any], n_steps: int) -> list[np.ndarray]:
    return [env.step(number // 2 % 2)[0] for number in range(n_steps)]


def seen_in(phase: int, raw: np.ndarray, task_seed: int) -> np.ndarray:
    change = CHANGES["observation_rotation"](gym.make("CartPole-v1"))
    change.enter(task_seed, phase)
    return np.asarray(change.observation(raw))


def test_a_swapped_action_acts_from_the_first_step_of_the_phase_on() -> None:
    swapped, plain = make(phase_steps=3, change="action_permutation"), gym.make("CartPole-v1")
    swapped.reset(seed=1)
    plain.reset(seed=1)
    for number in range(6):
        observation = swapped.step(1)[0]
        np.testing.assert_array_equal(observation, plain.step(1 if number < 3 else 0)[0])


def test_phases_go_on_over_the_end_of_episodes() -> None:
    env = make(phase_steps=50)
    env.reset(seed=0)
    assert [phase for _, phase in play(env, 120)] == [0] * 49 + [1] * 50 + [2] * 21
    assert env.reset()[1]["phase"] == 2


@pytest.mark.parametrize("change", CHANGES)
def test_a_task_follows_from_seed_and_number_alone(change: str) -> None:
    """Whether phases are walked through, jumped to or restored, and whatever seed the episodes have."""
    walking, jumping, restored = make(10, change=change), make(10, change=change), make(10, change=change)
    walking.reset(seed=0)
    play(walking, 35)
    jumping.reset(seed=9)
    for phase in (8, 5, 3):
        jumping.set_phase(phase)
    play(jumping, 5)
    restored.set_state(walking.get_state())
    assert walking.get_state() == jumping.get_state() == {"task_seed": 0, "phase": 3, "steps_in_phase": 5}
    following = [env.reset(seed=1)[0] for env in (walking, jumping, restored)]
    runs = [play(env, 20) for env in (walking, jumping, restored)]
    for index in (1, 2):
        np.testing.assert_array_equal(following[0], following[index])
        for one, other in zip(runs[0], runs[index], strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            assert one[1] == other[1]


def test_other_seeds_are_other_tasks() -> None:
    observations = []
    for task_seed in (0, 1):
        env = make(None, task_seed)
        env.set_phase(1)
        observations.append(env.reset(seed=0)[0])
    assert not np.allclose(*observations)


def test_the_environments_of_a_vector_share_their_tasks() -> None:
    envs = make_vec_env(IDS[0], 3, seed=0, env_kwargs={"phase_steps": None, "task_seed": 4})
    envs.env_method("set_phase", 2)
    seen = np.asarray(envs.reset())
    for number in range(3):
        np.testing.assert_array_equal(seen[number], seen_in(2, gym.make("CartPole-v1").reset(seed=number)[0], 4))


def test_without_a_task_seed_the_first_reset_gives_it() -> None:
    env = make(None, task_seed=None)
    env.set_phase(1)
    first = env.reset(seed=5)[0]
    np.testing.assert_array_equal(first, seen_in(1, gym.make("CartPole-v1").reset(seed=5)[0], 5))
    env.reset(seed=6)
    assert env.task_seed == 5
    unseeded = [make(None, task_seed=None) for _ in range(2)]
    for env in unseeded:
        env.reset()
    assert unseeded[0].task_seed != unseeded[1].task_seed


def test_a_phase_that_is_set_begins_at_its_start_and_stays_without_phase_steps() -> None:
    env = make(phase_steps=4)
    env.reset(seed=0)
    play(env, 3)
    env.set_phase(6)
    assert [phase for _, phase in play(env, 5)] == [6, 6, 6, 7, 7]
    frozen = make(phase_steps=None)
    frozen.reset(seed=0)
    frozen.set_phase(6)
    assert {phase for _, phase in play(frozen, 100)} == {6}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("env_id", "change"), [(env_id, None) for env_id in IDS] + [*product(IDS, CHANGES)])
def test_checkers_of_gymnasium_and_sb3_agree(env_id: str, change: str | None) -> None:
    env = gym.make(env_id, phase_steps=None, task_seed=1, **({"change": change} if change else {}))
    env.get_wrapper_attr("set_phase")(3)
    check_env(layer_of(env), skip_render_check=True)
    check_env_of_sb3(env)


def layer_of(env: gym.Env[Any, Any]) -> ContinualEnv:
    while isinstance(env, gym.Wrapper) and not isinstance(env, ContinualEnv):
        env = env.env
    assert isinstance(env, ContinualEnv)
    return env


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"change": "gravity"}, "change 'gravity' is not known; remedy: observation_rotation, "),
        ({"phase_steps": 0}, "phase_steps 0 is no positive whole number; remedy: one such as 40000, or null"),
        ({"phase_steps": 1.5}, "phase_steps 1.5 is no"),
        ({"phase_steps": True}, "phase_steps True is no"),
        ({"task_seed": -1}, "task_seed -1 is no whole number from 0; remedy: "),
        ({"task_seed": "x"}, "task_seed 'x' is no"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        gym.make(IDS[0], **arguments)
    with pytest.raises(ValueError, match="phase -1 is no whole number from 0"):
        make().set_phase(-1)
