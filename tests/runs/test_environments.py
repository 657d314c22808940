from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, unwrap_vec_normalize

from helpers import needs
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.environments import (
    check_environment,
    check_phases,
    make_evaluation_env,
    make_training_env,
    policy_alias,
    stacked_observations,
)

ATARI = needs("atari", "ale_py", "cv2")
PENDULUM = np.array([1, 1, 8], np.float32)
"""Upper bounds of Pendulum-v1's observations."""


def test_only_environments_with_phases_can_tell_of_changes() -> None:
    check_phases("ContinualCartPole-v0", {})
    with pytest.raises(UserInputError, match="--change-kwargs told: CartPole-v1 has no phases; remedy"):
        check_phases("CartPole-v1", {})


def test_environment_i_is_seeded_with_seed_plus_i_and_monitored(tmp_path: Path) -> None:
    env = make_training_env("Pendulum-v1", 3, 40, monitor_dir=tmp_path / "monitor")
    observations = env.reset()
    env.close()
    for index, observation in enumerate(observations):  # type: ignore[arg-type]
        expected, _ = gym.make("Pendulum-v1").reset(seed=40 + index)
        np.testing.assert_array_equal(observation, expected)
    assert sorted(path.name for path in (tmp_path / "monitor").iterdir()) == [f"{i}.monitor.csv" for i in range(3)]


def test_evaluation_shares_the_statistics_and_leaves_them_alone(tmp_path: Path) -> None:
    env = make_training_env("Pendulum-v1", 2, 0, monitor_dir=tmp_path, normalize=True, gamma=0.9)
    assert isinstance(env, VecNormalize)
    assert env.gamma == 0.9
    env.reset()
    for _ in range(20):
        env.step(np.ones((2, 1)))
    count, mean = env.obs_rms.count, env.obs_rms.mean.copy()
    evaluation = make_evaluation_env("Pendulum-v1", 1, 5, env)
    assert isinstance(evaluation, VecNormalize)
    assert not evaluation.norm_reward
    raw, _ = gym.make("Pendulum-v1").reset(seed=5)
    np.testing.assert_allclose(evaluation.reset(), env.normalize_obs(raw[None]))
    evaluation.step(np.ones((1, 1)))
    assert env.obs_rms.count == count
    np.testing.assert_array_equal(env.obs_rms.mean, mean)


def test_evaluation_without_normalization_is_plain(tmp_path: Path) -> None:
    env = make_training_env("CartPole-v1", 1, 0, monitor_dir=tmp_path)
    assert type(make_evaluation_env("CartPole-v1", 2, 0, env)) is DummyVecEnv


def test_arguments_reach_training_and_evaluation(tmp_path: Path) -> None:
    env = make_training_env("LunarLander-v3", 2, 0, monitor_dir=tmp_path, env_kwargs={"gravity": -4.0})
    evaluation = make_evaluation_env("LunarLander-v3", 1, 0, env, env_kwargs={"gravity": -4.0})
    assert [*env.get_attr("gravity"), *evaluation.get_attr("gravity")] == [-4.0] * 3


@pytest.mark.parametrize(("env_kwargs", "task_seed"), [({}, 7), ({"task_seed": 0}, 0)])
def test_phases_are_counted_over_all_environments(env_kwargs: dict[str, int], task_seed: int, tmp_path: Path) -> None:
    env = make_training_env("ContinualCartPole-v0", 8, 7, monitor_dir=tmp_path, env_kwargs=env_kwargs)
    assert env.get_attr("phase_steps") == [5_000] * 8
    assert env.get_attr("task_seed") == [task_seed] * 8
    evaluation = make_evaluation_env("ContinualCartPole-v0", 2, 11, env, env_kwargs=env_kwargs, phase=3)
    assert evaluation.get_attr("phase_steps") == [None] * 2
    assert evaluation.get_attr("task_seed") == [task_seed] * 2
    assert evaluation.get_attr("phase") == [3] * 2
    frozen = make_training_env("ContinualCartPole-v0", 3, 7, monitor_dir=tmp_path, env_kwargs={"phase_steps": None})
    assert frozen.get_attr("phase_steps") == [None] * 3


@pytest.mark.usefixtures("toy_envs")
@pytest.mark.parametrize("normalize", [False, True])
def test_evaluation_stacks_as_many_observations(normalize: bool, tmp_path: Path) -> None:
    """The newest comes last; those before the first are 0."""
    env = make_training_env("Pendulum-v1", 2, 0, monitor_dir=tmp_path, normalize=normalize, frame_stack=3)
    env.reset()
    for _ in range(20):
        env.step(np.ones((2, 1)))
    evaluation = make_evaluation_env("Pendulum-v1", 1, 5, env)
    first = np.asarray(evaluation.reset())[0]
    second = np.asarray(evaluation.step(np.ones((1, 1)))[0])[0]
    normalizer = unwrap_vec_normalize(env)
    raw, _ = gym.make("Pendulum-v1").reset(seed=5)
    newest = raw if normalizer is None else normalizer.normalize_obs(raw)
    np.testing.assert_allclose(first, [0.0] * 6 + list(newest), rtol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_array_equal(second[:6], first[3:])
    images = make_training_env("toy_envs:ToyImage-v0", 1, 0, monitor_dir=tmp_path, frame_stack=4)
    assert images.reset().shape == (1, 36, 36, 12)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("env_id", "space", "expected"),
    [
        ("Pendulum-v1", spaces.Box(-PENDULUM.repeat(3), PENDULUM.repeat(3)), 3),
        ("Pendulum-v1", spaces.Box(-PENDULUM, PENDULUM), 1),
        ("Pendulum-v1", spaces.Box(-1, 1, (10,)), 1),
        ("Pendulum-v1", gym.make("Acrobot-v1").observation_space, 1),  # of twice the size, but another task's
        pytest.param("ALE/Pong-v5", spaces.Box(0, 255, (4, 84, 84), np.uint8), 4, marks=ATARI),
        ("FrozenLake-v1", spaces.Discrete(16), 1),
    ],
)
def test_an_agent_tells_how_many_observations_it_sees(env_id: str, space: gym.Space[Any], expected: int) -> None:
    assert stacked_observations(env_id, space) == expected


@pytest.mark.usefixtures("toy_envs")
@pytest.mark.parametrize("env_id", ["ToyDiscrete-v0", "ToyMixed-v0"])
def test_observations_that_cannot_be_stacked(env_id: str) -> None:
    check_environment(f"toy_envs:{env_id}", frame_stack=1)
    with pytest.raises(UserInputError, match=rf"--frame-stack 2: toy_envs:{env_id} observes D.*; remedy: 1, "):
        check_environment(f"toy_envs:{env_id}", frame_stack=2)
    check_environment("toy_envs:ToyImage-v0", frame_stack=2)


@pytest.mark.usefixtures("toy_envs")
@pytest.mark.parametrize(
    ("env_id", "policy", "normalized"),
    [
        ("ToyVector-v0", "MlpPolicy", True),
        ("ToyDiscrete-v0", "MlpPolicy", False),
        ("ToyImage-v0", "CnnPolicy", False),
        ("ToyMixed-v0", "MultiInputPolicy", ["vector"]),
    ],
)
def test_observations_choose_the_policy_and_what_is_normalized(
    env_id: str, policy: str, normalized: bool | list[str], tmp_path: Path
) -> None:
    env = make_training_env(f"toy_envs:{env_id}", 1, 0, monitor_dir=tmp_path, normalize=True)
    assert policy_alias(env.observation_space) == policy
    assert isinstance(env, VecNormalize)
    assert env.norm_reward
    assert (env.norm_obs_keys or env.norm_obs) == normalized
    observations = make_evaluation_env(f"toy_envs:{env_id}", 1, 0, env).reset()
    if env_id == "ToyMixed-v0":
        assert observations["image"].dtype == np.uint8  # type: ignore[call-overload,index]


@pytest.mark.usefixtures("toy_envs")
def test_ids_that_can_be_made() -> None:
    check_environment("CartPole-v1")
    check_environment("toy_envs:ToyVector-v0")


@pytest.mark.usefixtures("toy_envs")
@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPoel-v1", r"is not registered with gymnasium; did you mean 'CartPole-v1'\?"),
        ("CartPole-v7", r"did you mean 'CartPole-v1'\?"),
        ("Qqqqqqq-v5", r"remedy: module:Qqqqqqq-v5, with the module that registers it"),
        pytest.param("ALE/Pnog-v5", r"did you mean 'ALE/Pong-v5'\?", marks=ATARI),
        ("toy_envs:ToyImag-v0", r"did you mean 'ToyImage-v0'\?"),
        ("nowhere:Env-v0", r"cannot be imported: No module named 'nowhere'.*; remedy: install the module"),
        ("Hopper-v2", r"(cannot be imported: .*gymnasium-robotics|missing; .*mujoco_py)"),  # gymnasium 1.0 has it still
        ("toy_envs:ToyNeedsArgument-v0", r"cannot be made: .*missing 1 required positional argument: 'arena'"),
        ("a:b:c", r"cannot be made: .*an id looks like module:Name-v0"),
        ("", r"cannot be made: Malformed environment ID"),
    ],
)
def test_ids_that_cannot_be_made(env_id: str, message: str, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(UserInputError, match=rf"--env-id '{env_id}'.*{message}" if env_id else message):
        check_environment(env_id)
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "n_envs", "message"),
    [
        ("CartPole-v1", {"pole": 1}, 1, r"--env-kwargs {'pole': 1}: CartPole-v1 refuses them: .*unexpected keyword "),
        ("CartPole-v1", {"pole": 1}, 1, r"'pole'; remedy: values for (sutton_\w+, )?render_mode that it allows"),
        ("LunarLander-v3", {"gravity": 5}, 1, r"--env-kwargs .*gravity \(current value: 5\) must be between -12 and 0"),
        ("ContinualLunarLander-v0", {"wind": 1}, 1, r"argument 'wind'; remedy: values for render_mode, continuous, "),
        ("ContinualCartPole-v0", {"phase_steps": -8}, 8, r"^phase_steps -8 is no positive whole number; remedy: "),
        ("ContinualCartPole-v0", {"change": "wind"}, 8, r"^change 'wind' is not known; remedy: observation_rotation, "),
        ("ContinualCartPole-v0", {}, 3, r"--n-envs 3 cannot share phases of 40000 steps equally; .*steps\": 39999}'"),
        ("ContinualCartPole-v0", {"phase_steps": 3}, 8, r"remedy: --env-kwargs '{\"phase_steps\": 8}'"),
        ("CartPole-v7", {"pole": 1}, 1, r"--env-id 'CartPole-v7'.*did you mean 'CartPole-v1'"),
    ],
)
def test_arguments_that_cannot_be_used(env_id: str, env_kwargs: dict[str, Any], n_envs: int, message: str) -> None:
    check_environment("ContinualCartPole-v0", {"phase_steps": 30}, 3)
    with pytest.raises(UserInputError, match=message) as raised:
        check_environment(env_id, env_kwargs, n_envs)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("env_id", "package", "extra"),
    [
        ("LunarLander-v3", "Box2D", "box2d"),
        ("ContinualLunarLander-v0", "Box2D", "box2d"),
        ("Hopper-v5", "mujoco", "mujoco"),
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("PongNoFrameskip-v4", "cv2", "atari"),
    ],
)
def test_a_missing_package_names_the_extra(
    env_id: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith(f"gymnasium.envs.{extra}")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # which makes its import fail
    with pytest.raises(UserInputError, match=rf"{env_id}.*remedy: pip install 'sb3-vgs-ppo\[{extra}\]'"):
        check_environment(env_id)
