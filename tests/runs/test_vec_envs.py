from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import SubprocVecEnv, VecCheckNan

from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs import calibration, training
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.environments import make_training_env
from sb3_vgs_ppo.runs.training import train
from sb3_vgs_ppo.runs.vec_envs import WorkerVecEnv, call_in_each


def in_workers(tmp_path: Path, env_id: str = "CartPole-v1", **env_kwargs: Any) -> WorkerVecEnv:
    env = make_training_env(env_id, 2, 0, monitor_dir=tmp_path, env_kwargs=env_kwargs, vec_env="subproc")
    assert isinstance(env, WorkerVecEnv)
    return env


ATTRIBUTE_OF = gym.Wrapper.get_wrapper_attr
"""A function of an environment that can be pickled."""


def test_functions_are_called_where_the_environments_live(tmp_path: Path) -> None:
    here = make_training_env("CartPole-v1", 2, 0, monitor_dir=tmp_path / "here", normalize=True, frame_stack=2)
    there = in_workers(tmp_path / "there")
    here.reset()
    there.reset()
    ours = call_in_each(here, ATTRIBUTE_OF, ["state", "np_random"])
    theirs = call_in_each(VecCheckNan(there), ATTRIBUTE_OF, ["state", "np_random"])
    there.close()
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[1].bit_generator.state == theirs[1].bit_generator.state
    assert ours[1] is here.unwrapped.envs[1].unwrapped.np_random  # type: ignore[attr-defined]


def test_an_error_of_a_function_comes_back_and_the_environments_go_on(tmp_path: Path) -> None:
    env = in_workers(tmp_path)
    env.reset()
    with pytest.raises(AttributeError, match="'nothing'"):
        call_in_each(env, ATTRIBUTE_OF, ["gravity", "nothing"])
    assert call_in_each(env, ATTRIBUTE_OF, ["gravity", "total_steps"]) == [9.8, 0]
    env.close()


def test_other_vectorized_environments_cannot_be_reached() -> None:
    env = SubprocVecEnv([partial(gym.make, "CartPole-v1")])
    with pytest.raises(TypeError, match="environments of SubprocVecEnv cannot be reached; remedy: DummyVecEnv"):
        call_in_each(VecCheckNan(env), str)
    env.close()


def test_ctrl_c_is_left_to_the_run(tmp_path: Path) -> None:
    env = in_workers(tmp_path)
    env.reset()
    for process in env.processes:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
    *_, infos = env.step([0, 1])  # type: ignore[arg-type]
    assert len(infos) == 2
    env.close()
    assert not any(process.is_alive() for process in env.processes)


def test_processes_end_in_the_middle_of_a_step(tmp_path: Path) -> None:
    """As after a second Ctrl-C, when one answer has been taken and another has not."""
    env = in_workers(tmp_path)
    env.reset()
    env.step_async([0, 1])  # type: ignore[arg-type]
    env.remotes[0].recv()
    env.close()
    assert not any(process.is_alive() for process in env.processes)


@pytest.mark.usefixtures("toy_envs")
def test_a_crash_says_where_its_error_is(tmp_path: Path) -> None:
    env = in_workers(tmp_path, "toy_envs:ToyCrash-v0")
    env.reset()
    for _ in range(99):
        env.step([0, 1])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="process of an environment has ended; its error is printed above"):
        env.step([0, 1])  # type: ignore[arg-type]
    env.close()
    assert not any(process.is_alive() for process in env.processes)


@pytest.mark.usefixtures("toy_envs")
def test_a_crash_of_the_first_reset_says_so_too(tmp_path: Path) -> None:
    env = in_workers(tmp_path, "toy_envs:ToyStuck-v0")
    with pytest.raises(RuntimeError, match="process of an environment has ended"):
        env.reset()
    env.close()


def test_processes_change_nothing(
    short_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "STEPS", 16)
    monkeypatch.setattr(training, "FINAL_EVALUATION_EPISODES", 2)
    parameters, evaluations = [], []
    for vec_env in ("dummy", "subproc"):
        result = train(short_config(vec_env=vec_env, run_dir=str(tmp_path / vec_env), env_id="ContinualCartPole-v0"))
        policy = DistributionalPPO.load(result.folder.final_model).policy
        parameters.append(th.nn.utils.parameters_to_vector(policy.parameters()))
        evaluations.append(result.folder.evaluations.read_text())
    assert th.equal(*parameters)
    assert evaluations[0] == evaluations[1]
