"""Continual environments in gymnasium's registry, and when their phases begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, load_env_creator, parse_env_id

from sb3_vgs_ppo.envs.continual import ContinualEnv

_CONTINUAL: dict[str, tuple[str, str, int]] = {
    "ContinualCartPole-v0": ("CartPole-v1", "observation_rotation", 40_000),
    "ContinualLunarLander-v0": ("LunarLander-v3", "action_permutation", 200_000),
    "ContinualHopper-v0": ("Hopper-v5", "physics", 200_000),
}
"""Plain environment, change and steps of a phase by id. The three cover what can change: what an agent sees, what its
actions do, and how the world moves. In a phase PPO gets far on the plain task, so that a slower start shows."""

_ENTRY_POINT = "sb3_vgs_ppo.envs.registration:make_continual"


def register_continual() -> None:
    """Register the environments with gymnasium; those that are registered are left alone."""
    for env_id, (base_id, change, phase_steps) in _CONTINUAL.items():
        if env_id not in gym.registry:
            base = gym.spec(base_id)
            gym.register(
                env_id,
                _ENTRY_POINT,
                reward_threshold=base.reward_threshold,
                max_episode_steps=base.max_episode_steps,
                kwargs={"base_id": base_id, "change": change, "phase_steps": phase_steps},
            )


def make_continual(
    base_id: str, change: str, phase_steps: int | None, task_seed: int | None = None, **kwargs: Any
) -> ContinualEnv:
    """
    Entry point of the registered environments.

    :param base_id: id of the plain environment
    :param change: see :class:`ContinualEnv`, as ``phase_steps`` and ``task_seed``
    :param kwargs: arguments of the plain environment
    :return: without the wrappers that ``gymnasium.make`` puts around
    """
    base = gym.spec(base_id)
    assert isinstance(base.entry_point, str)
    env: Any = load_env_creator(base.entry_point)(**{**base.kwargs, **kwargs})
    return ContinualEnv(env, change, phase_steps, task_seed)


def phase_length(env_id: str, env_kwargs: Mapping[str, Any]) -> int | None:
    """
    :param env_id: registered id, or ``module:Env-v0``
    :param env_kwargs: arguments with which it is made
    :return: steps of one phase, of all environments of a run together; None if the environment does not change
    """
    spec = _find_spec(env_id)
    if spec is None or spec.entry_point != _ENTRY_POINT:
        return None
    length: int | None = {**spec.kwargs, **env_kwargs}["phase_steps"]
    return length


def phase_of(step: int, length: int | None) -> int:
    """
    :param step: number of a step, counted from 1 over all environments of a run; 0 is the start of the run
    :param length: what :func:`phase_length` returned
    :return: the phase in which the step was made: that of step ``k * length`` is still ``k - 1``
    """
    return 0 if length is None else max(step - 1, 0) // length


def _find_spec(env_id: str) -> EnvSpec | None:
    """:return: what ``gymnasium.make`` would make; without a version it takes the newest"""
    name = env_id.rpartition(":")[2]
    try:
        namespace, stem, version = parse_env_id(name)
    except gym.error.Error:
        return None
    if version is None:
        name = get_env_id(namespace, stem, find_highest_version(namespace, stem))
    return gym.registry.get(name)
