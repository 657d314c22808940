"""Environments at a checkpoint: a snapshot where that is exact, the end of the episodes where it is not.

A snapshot is exact where everything that decides an environment's future is known by name: in gymnasium's classic
control and MuJoCo, in Atari games, and in what :class:`~sb3_vgs_ppo.envs.ContinualEnv` makes of them. Other
environments keep it out of reach, in a physics engine say. Their episodes are ended at every checkpoint, as a
truncation, and begun anew with a seed that follows from the run's seed and the step; in runs that are never interrupted
too, so that an interrupted one can repeat it. The phase of a continual environment goes on there too.

Functions of one environment are called where it lives, which may be another process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.atari_wrappers import (
    AtariWrapper,
    ClipRewardEnv,
    EpisodicLifeEnv,
    FireResetEnv,
    MaxAndSkipEnv,
    NoopResetEnv,
    WarpFrame,
)
from stable_baselines3.common.env_util import unwrap_wrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, unwrap_vec_wrapper
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.envs import ContinualEnv
from sb3_vgs_ppo.runs.atari import AgentSteps, atari_state, is_atari, load_atari_state
from sb3_vgs_ppo.runs.mujoco_state import is_mujoco, load_mujoco_state, mujoco_state
from sb3_vgs_ppo.runs.plain_values import from_plain, to_plain
from sb3_vgs_ppo.runs.vec_envs import call_in_each

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
    AgentSteps: (),
    AtariWrapper: (),
    ClipRewardEnv: (),
    EpisodicLifeEnv: ("lives", "was_real_done"),
    FireResetEnv: (),
    MaxAndSkipEnv: ("_obs_buffer",),
    NoopResetEnv: (),
    WarpFrame: (),
}
"""What changes in these environments and wrappers between resets, besides the random generator. Exact types only: a
subclass may have more."""


def can_snapshot(env: VecEnv) -> bool:
    """
    :param env: training environment
    :return: whether all that changes in its environments is known
    """
    return all(call_in_each(env, _is_known))


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
    call_in_each(env, _write_cut_episode)
    call_in_each(env, _renew_engine)
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
    :return: per environment the states of its layers, the outermost first (a layer that is not known has none); for a
        snapshot, those of its random generators; and the observations in a ``VecFrameStack``
    """
    states = call_in_each(env, _state, [can_snapshot(env)] * env.num_envs)
    for number, state in enumerate(states):
        state["frames"] = [to_plain(stack.stacked_obs[number]) for stack in _stacks(env)]
    return states


def load_environment_states(env: VecEnv, states: list[StateDict], seed: int | None) -> None:
    """
    Put new environments into the state of old ones.

    :param env: environments that were made in the same way
    :param states: as :func:`environment_states` returned them
    :param seed: what :func:`end_unless_exact` returned
    """
    if seed is not None:
        _seed(env, seed)
    call_in_each(env, _load_tasks, states)  # first: episodes begin in the task of their phase
    # The innermost one: VecNormalize would count the observations of this reset
    env.unwrapped.reset()
    call_in_each(env, _load_state, states)
    for number, state in enumerate(states):
        for stack, frames in zip(_stacks(env), state.get("frames", ()), strict=True):
            stack.stacked_obs[number] = from_plain(frames)


def reset_seed(run_seed: int, num_timesteps: int) -> int:
    """
    :param run_seed: seed of the run
    :param num_timesteps: step of the checkpoint
    :return: seed of the first environment, far from all others of the run
    """
    words = np.random.SeedSequence([run_seed, num_timesteps, 1]).generate_state(1)
    return int(words[0]) >> 2  # some environments want 31 bits, and the number of the environment is added


def _write_cut_episode(env: gym.Env[Any, Any]) -> None:
    """
    Give the running episode a row without a return in the monitor file: from the lengths follows at which step each of
    the later ones ended.
    """
    monitor = unwrap_wrapper(env, Monitor)
    if isinstance(monitor, Monitor) and monitor.results_writer is not None and monitor.rewards:
        seconds = round(time.time() - monitor.t_start, 6)
        monitor.results_writer.write_row({"r": math.nan, "l": len(monitor.rewards), "t": seconds})


def _renew_engine(env: gym.Env[Any, Any]) -> None:
    """
    Make an environment of Box2D anew: its world survives a reset, and remembers in which order bodies were destroyed.
    """
    monitor = unwrap_wrapper(env, Monitor)
    if type(env.unwrapped).__module__.startswith("gymnasium.envs.box2d.") and monitor is not None:
        old = monitor.env
        assert old.spec is not None
        monitor.env = gym.make(old.spec)
        for old_layer, new_layer in zip(_layers(old), _layers(monitor.env), strict=True):
            if isinstance(old_layer, ContinualEnv) and isinstance(new_layer, ContinualEnv):
                new_layer.set_state(old_layer.get_state())
        old.close()


def _seed(env: VecEnv, seed: int) -> None:
    """Seed the next reset and, as SB3's ``make_vec_env`` does, the action spaces."""
    env.seed(seed)
    call_in_each(env, _seed_actions, range(seed, seed + env.num_envs))


def _seed_actions(env: gym.Env[Any, Any], seed: int) -> None:
    env.action_space.seed(seed)


def _is_known(env: gym.Env[Any, Any]) -> bool:
    known = (*SNAPSHOT_ATTRIBUTES, ContinualEnv)
    return all(_known_class(layer) in known or _engine_of(layer) is not None for layer in _layers(env))


def _state(env: gym.Env[Any, Any], exact: bool) -> StateDict:
    generators = [to_plain(generator.bit_generator.state) for generator in _generators(env)] if exact else []
    return {"layers": [_layer_state(layer) for layer in _layers(env)], "generators": generators}


def _layer_state(layer: gym.Env[Any, Any]) -> StateDict:
    engine = _engine_of(layer)
    if engine is not None:
        return engine[0](layer)
    if isinstance(layer, ContinualEnv):
        return dict(layer.get_state())
    return {name: to_plain(getattr(layer, name)) for name in SNAPSHOT_ATTRIBUTES.get(_known_class(layer), ())}


def _load_tasks(env: gym.Env[Any, Any], state: StateDict) -> None:
    """Load what decides the tasks."""
    for layer, layer_state in zip(_layers(env), state["layers"], strict=True):
        if isinstance(layer, ContinualEnv):
            layer.set_state(layer_state)


def _load_state(env: gym.Env[Any, Any], state: StateDict) -> None:
    """Load everything else."""
    for layer, layer_state in zip(_layers(env), state["layers"], strict=True):
        engine = _engine_of(layer)
        if engine is not None:
            engine[1](layer, layer_state)
        elif not isinstance(layer, ContinualEnv):
            vars(layer).update(from_plain(layer_state))
    for generator, generator_state in zip(_generators(env), state["generators"], strict=False):
        generator.bit_generator.state = from_plain(generator_state)


def _engine_of(
    layer: gym.Env[Any, Any],
) -> tuple[Callable[[Any], StateDict], Callable[[Any, StateDict], None]] | None:
    """:return: how the state of a physics engine or emulator is read and loaded, None where there is no such engine"""
    if is_mujoco(layer):
        return mujoco_state, load_mujoco_state
    return (atari_state, load_atari_state) if is_atari(layer) else None


def _generators(env: gym.Env[Any, Any]) -> list[np.random.Generator]:
    return [env.unwrapped.np_random, env.action_space.np_random]


def _stacks(env: VecEnv) -> list[StackedObservations[Any]]:
    """:return: where a ``VecFrameStack`` keeps observations, one for every part of ``Dict`` observations"""
    wrapper = unwrap_vec_wrapper(env, VecFrameStack)
    if not isinstance(wrapper, VecFrameStack):
        return []
    stacked = wrapper.stacked_obs
    if isinstance(stacked.observation_space, spaces.Dict):
        return list(stacked.sub_stacked_observations.values())
    return [stacked]


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
