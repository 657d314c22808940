"""Environments at a checkpoint: a snapshot where that is exact, the end of the episodes where it is not.

A snapshot is exact where everything that decides an environment's future is known by name: in gymnasium's classic
control and MuJoCo, and in what :class:`~sb3_vgs_ppo.envs.ContinualEnv` makes of them. Other environments keep it out of
reach, in a physics engine or an emulator. Their episodes are ended at every checkpoint, as a truncation, and begun anew
with a seed that follows from the run's seed and the step; in runs that are never interrupted too, so that an
interrupted one can repeat it. The phase of a continual environment goes on there too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.envs import ContinualEnv
from sb3_vgs_ppo.runs.mujoco_state import is_mujoco, load_mujoco_state, mujoco_state
from sb3_vgs_ppo.runs.plain_values import from_plain, to_plain

SNAPSHOT_ATTRIBUTES: dict[type[gym.Env[Any, Any]], tuple[str, ...]] = {
    AcrobotEnv: ("state",),
    CartPoleEnv: ("state", "steps_beyond_terminated"),
    Continuous_MountainCarEnv: ("state",),
    MountainCarEnv: ("state",),
    PendulumEnv: ("state", "last_u"),
    Monitor: ("rewards", "total_steps", "t_start"),
    OrderEnforcing: (),
    PassiveEnvChecker: (),
    TimeLimit: ("_elapsed_steps",),
}
"""What changes in these environments and wrappers between resets, besides the random generator. Exact types only: a
subclass may have more."""


def can_snapshot(env: VecEnv) -> bool:
    """
    :param env: training environment
    :return: whether all that changes in its environments is known
    """
    known = (*SNAPSHOT_ATTRIBUTES, ContinualEnv)
    layers = [layer for one in _environments(env) for layer in _layers(one)]
    return all(_known_class(layer) in known or is_mujoco(layer) for layer in layers)


def end_unless_exact(model: PPO, run_seed: int) -> int | None:
    """
    Begin new episodes, as after a truncation, where a snapshot of the environments would not be exact. The last rollout
    has been bootstrapped with the value of its last observations, as every rollout is.

    :param model: with its environments, between an update and the next rollout
    :param run_seed: seed of the run
    :return: seed with which new episodes were begun, None where the environments can go on
    """
    env = model.get_env()
    assert env is not None
    if can_snapshot(env):
        return None
    seed = reset_seed(run_seed, model.num_timesteps)
    _write_cut_episodes(env)
    _renew_engines(env)
    _seed(env, seed)
    model._last_obs = env.reset()  # type: ignore[assignment]
    model._last_episode_starts = np.ones((env.num_envs,), dtype=bool)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        model._last_original_obs = normalizer.get_original_obs()
    return seed


def environment_states(env: VecEnv) -> list[StateDict]:
    """
    :param env: training environment
    :return: per environment the states of its layers, the outermost first (a layer that is not known has none), and,
        for a snapshot, those of its random generators
    """
    exact = can_snapshot(env)
    return [
        {
            "layers": [_layer_state(layer) for layer in _layers(one)],
            "generators": [to_plain(generator.bit_generator.state) for generator in _generators(one)] if exact else [],
        }
        for one in _environments(env)
    ]


def load_environment_states(env: VecEnv, states: list[StateDict], seed: int | None) -> None:
    """
    Put new environments into the state of old ones.

    :param env: environments that were made in the same way
    :param states: as :func:`environment_states` returned them
    :param seed: what :func:`end_unless_exact` returned
    """
    if seed is not None:
        _seed(env, seed)
    _load_layer_states(env, states, tasks=True)  # first: episodes begin in the task of their phase
    # The innermost one: VecNormalize would count the observations of this reset
    env.unwrapped.reset()
    _load_layer_states(env, states, tasks=False)
    for one, state in zip(_environments(env), states, strict=True):
        for generator, generator_state in zip(_generators(one), state["generators"], strict=False):
            generator.bit_generator.state = from_plain(generator_state)


def reset_seed(run_seed: int, num_timesteps: int) -> int:
    """
    :param run_seed: seed of the run
    :param num_timesteps: step of the checkpoint
    :return: seed of the first environment, far from all others of the run
    """
    words = np.random.SeedSequence([run_seed, num_timesteps, 1]).generate_state(1)
    return int(words[0]) >> 2  # some environments want 31 bits, and the number of the environment is added


def _write_cut_episodes(env: VecEnv) -> None:
    """
    Give the running episodes a row without a return in the monitor files: from the lengths follows at which step each
    of the later ones ended.
    """
    for one in _environments(env):
        if isinstance(one, Monitor) and one.results_writer is not None and one.rewards:
            seconds = round(time.time() - one.t_start, 6)
            one.results_writer.write_row({"r": math.nan, "l": len(one.rewards), "t": seconds})


def _renew_engines(env: VecEnv) -> None:
    """
    Make Box2D's environments anew: their worlds survive a reset, and remember in which order bodies were destroyed.
    """
    for one in _environments(env):
        if type(one.unwrapped).__module__.startswith("gymnasium.envs.box2d.") and isinstance(one, Monitor):
            old = one.env
            assert old.spec is not None
            one.env = gym.make(old.spec)
            for old_layer, new_layer in zip(_layers(old), _layers(one.env), strict=True):
                if isinstance(old_layer, ContinualEnv) and isinstance(new_layer, ContinualEnv):
                    new_layer.set_state(old_layer.get_state())
            old.close()


def _seed(env: VecEnv, seed: int) -> None:
    """Seed the next reset and, as SB3's ``make_vec_env`` does, the action spaces."""
    env.seed(seed)
    for number, one in enumerate(_environments(env)):
        one.action_space.seed(seed + number)


def _layer_state(layer: gym.Env[Any, Any]) -> StateDict:
    if is_mujoco(layer):
        return mujoco_state(layer)
    if isinstance(layer, ContinualEnv):
        return dict(layer.get_state())
    return {name: to_plain(getattr(layer, name)) for name in SNAPSHOT_ATTRIBUTES.get(_known_class(layer), ())}


def _load_layer_states(env: VecEnv, states: list[StateDict], *, tasks: bool) -> None:
    """:param tasks: load what decides the tasks, or everything else"""
    for one, state in zip(_environments(env), states, strict=True):
        for layer, layer_state in zip(_layers(one), state["layers"], strict=True):
            if isinstance(layer, ContinualEnv):
                if tasks:
                    layer.set_state(layer_state)
            elif not tasks:
                load = load_mujoco_state if is_mujoco(layer) else _load_attributes
                load(layer, layer_state)


def _load_attributes(layer: gym.Env[Any, Any], state: StateDict) -> None:
    vars(layer).update(from_plain(state))


def _generators(env: gym.Env[Any, Any]) -> list[np.random.Generator]:
    return [env.unwrapped.np_random, env.action_space.np_random]


def _environments(env: VecEnv) -> list[gym.Env[Any, Any]]:
    vec_env = env.unwrapped
    if not isinstance(vec_env, DummyVecEnv):
        raise TypeError(f"environments of {type(vec_env).__name__} live in other processes; remedy: DummyVecEnv")
    return vec_env.envs


def _known_class(layer: gym.Env[Any, Any]) -> type[gym.Env[Any, Any]]:
    """:return: the layer's class; gymnasium's own ``TimeLimit`` for that which importing rl_zoo3 puts in its place"""
    kind = type(layer)
    return TimeLimit if (kind.__module__, kind.__base__) == ("rl_zoo3.gym_patches", TimeLimit) else kind


def _layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """:return: the wrappers, the outermost first, and the environment itself"""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env
