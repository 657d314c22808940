"""Training and evaluation environments from a registered id."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecFrameStack,
    VecNormalize,
    unwrap_vec_normalize,
    unwrap_vec_wrapper,
)

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo.envs import phase_length
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.atari import preprocess, register_atari, skip_frames
from sb3_vgs_ppo.runs.config import VecEnvName
from sb3_vgs_ppo.runs.vec_envs import WorkerEnv, WorkerVecEnv

_EXTRAS = ("box2d", "mujoco")
"""Extras of gymnasium that this package has too, under the same names."""


def make_training_env(
    env_id: str,
    n_envs: int,
    seed: int,
    *,
    monitor_dir: Path,
    env_kwargs: Mapping[str, Any] | None = None,
    normalize: bool = False,
    gamma: float = 0.99,
    vec_env: VecEnvName = "dummy",
    frame_stack: int = 1,
    append: bool = False,
) -> VecEnv:
    """
    :param env_id: registered id, or ``module:Env-v0``; see :func:`check_environment`
    :param n_envs: environment i is seeded with ``seed + i``
    :param monitor_dir: folder for one ``<i>.monitor.csv`` per environment
    :param env_kwargs: arguments of the environment; ``phase_steps`` of a continual one are those of all environments
        together, and its ``task_seed`` is ``seed`` if not given
    :param normalize: normalize observations and rewards by running statistics. Images and discrete observations stay as
        they are
    :param gamma: discount of the return whose running variance scales the rewards
    :param vec_env: step the environments one after the other in this process, or side by side in one process each
    :param frame_stack: number of observations, the newest last, that the agent sees as one; 1 for the newest alone
    :param append: go on with monitor files that are there, instead of overwriting them
    :raises UserInputError: the environments cannot have equal shares of a phase
    """
    arguments = _training_arguments(env_id, env_kwargs or {}, n_envs, seed)
    env = make_vec_env(
        partial(make_env, env_id, arguments),
        n_envs,
        seed=seed,
        monitor_dir=str(monitor_dir),
        monitor_kwargs={"override_existing": not append},
        wrapper_class=_wrap_in_worker if vec_env == "subproc" else preprocess,
        vec_env_cls=WorkerVecEnv if vec_env == "subproc" else None,
    )
    if normalize:
        env = VecNormalize(env, gamma=gamma, **_normalized_observations(env.observation_space))
    return env if frame_stack == 1 else VecFrameStack(env, frame_stack)


def make_evaluation_env(
    env_id: str,
    n_envs: int,
    seed: int,
    training_env: VecEnv,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    phase: int = 0,
) -> VecEnv:
    """
    An environment that sees what the training environment sees: its statistics are shared, and not updated here, and as
    many observations are stacked. It lives in this process.

    Rewards are the environment's own, but for those that SB3's preprocessing of Atari games clips. Their episodes in
    the ``Monitor`` have the game's own rewards too.

    :param training_env: where the agent is trained
    :param env_kwargs: arguments of the environment, as in :func:`make_training_env`
    :param phase: phase of a continual environment, whose task stays during the evaluation
    :return: an environment for one evaluation; the caller closes it
    """
    arguments = dict(env_kwargs or {})
    changes = phase_length(env_id, arguments) is not None
    if changes:
        arguments |= {"phase_steps": None, "task_seed": training_env.get_attr("task_seed")[0]}
    env = make_vec_env(partial(make_env, env_id, arguments), n_envs, seed=seed, wrapper_class=preprocess)
    if changes:
        env.env_method("set_phase", phase)
    trained = unwrap_vec_normalize(training_env)
    if trained is not None:
        options = _normalized_observations(env.observation_space)
        normalized = VecNormalize(env, training=False, norm_reward=False, **options)
        if trained.norm_obs:
            normalized.obs_rms = trained.obs_rms
        env = normalized
    stack = unwrap_vec_wrapper(training_env, VecFrameStack)
    return VecFrameStack(env, stack.stacked_obs.n_stack) if isinstance(stack, VecFrameStack) else env


def make_env(env_id: str, env_kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    """
    :param env_id: registered id, ``module:Env-v0``, or that of an Atari game
    :param env_kwargs: arguments of the environment
    :return: one environment, in what is to be within SB3's ``Monitor``
    """
    register_atari(env_id)
    return skip_frames(gym.make(env_id, **env_kwargs), env_id, env_kwargs)


def policy_alias(observation_space: spaces.Space[Any]) -> str:
    """:return: SB3's name of the policy for such observations"""
    if isinstance(observation_space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(observation_space) else "MlpPolicy"


def stacked_observations(env_id: str, observation_space: spaces.Space[Any]) -> int:
    """
    :param env_id: an environment
    :param observation_space: what an agent observes that was trained there
    :return: the ``frame_stack`` of its training; 1 where its observations are no stack of the environment's
    :raises UserInputError: see :func:`check_environment`
    """
    check_environment(env_id)
    env = preprocess(make_env(env_id, {}))
    env.close()
    one, several = _size(env.observation_space), _size(observation_space)
    alike = [_bounds(part) for part in _parts(env.observation_space)] == [_bounds(p) for p in _parts(observation_space)]
    return several // one if alike and one and several % one == 0 else 1


def check_phases(env_id: str, env_kwargs: Mapping[str, Any]) -> None:
    """
    :param env_id: an environment that can be made with these arguments
    :raises UserInputError: it has no phases that an agent could be told of
    """
    env = make_env(env_id, env_kwargs)
    env.close()
    if not env.has_wrapper_attr("phase"):
        raise UserInputError(
            f"--change-kwargs told: {env_id} has no phases; remedy: an environment that has, such as "
            "ContinualCartPole-v0, or an agent that is not told of changes"
        )


def check_environment(
    env_id: str, env_kwargs: Mapping[str, Any] | None = None, n_envs: int = 1, frame_stack: int = 1
) -> None:
    """
    Make an environment once and close it.

    :param env_kwargs: arguments of the environment, as in :func:`make_training_env`
    :raises UserInputError: the id is not registered, its module or a package that it needs cannot be imported, it
        cannot be made with these arguments, or its observations cannot be stacked
    """
    arguments = dict(env_kwargs or {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training will show them; an error is one line
            env = make_env(env_id, arguments)
            env.close()
    except UserInputError:
        raise
    except gym.error.UnregisteredEnv as error:
        raise UserInputError(f"--env-id {env_id!r} is not registered with gymnasium; {_closest_id(env_id)}") from error
    except gym.error.DependencyNotInstalled as error:
        raise UserInputError(f"--env-id {env_id!r}: a package is missing; {_remedy(error)}") from error
    except ImportError as error:
        hint = "; remedy: install the module, or put its folder on PYTHONPATH" if ":" in env_id else ""
        raise UserInputError(f"--env-id {env_id!r} cannot be imported: {str(error).rstrip('.')}{hint}") from error
    except (gym.error.Error, AssertionError, TypeError, ValueError) as error:
        if arguments and not isinstance(error, gym.error.Error):
            # Without the arguments, which gymnasium adds to a TypeError; 1.0 does so without "from".
            reason = (error.__context__ or error) if isinstance(error, TypeError) else error
            raise UserInputError(
                f"--env-kwargs {arguments}: {env_id} refuses them: {reason}; remedy: values for "
                f"{', '.join(_arguments_of(env_id))} that it allows"
            ) from error
        raise UserInputError(f"--env-id {env_id!r} cannot be made: {error}; an id looks like module:Name-v0") from error
    _training_arguments(env_id, arguments, n_envs, seed=0)
    space = env.observation_space
    if frame_stack > 1 and not all(isinstance(part, spaces.Box) for part in _parts(space)):
        raise UserInputError(f"--frame-stack {frame_stack}: {env_id} observes {space}; remedy: 1, only arrays stack")


def _parts(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    return list(space.values()) if isinstance(space, spaces.Dict) else [space]


def _size(space: spaces.Space[Any]) -> int:
    """:return: number of values in an observation, without those that are no arrays"""
    return sum(math.prod(part.shape) for part in _parts(space) if isinstance(part, spaces.Box))


def _bounds(space: spaces.Space[Any]) -> tuple[list[float], list[float]] | None:
    """:return: which lower and upper bounds there are in an array, None for anything else"""
    if not isinstance(space, spaces.Box):
        return None
    return np.unique(space.low).tolist(), np.unique(space.high).tolist()


def _wrap_in_worker(env: gym.Env[Any, Any]) -> WorkerEnv:
    return WorkerEnv(preprocess(env))


def _training_arguments(env_id: str, env_kwargs: Mapping[str, Any], n_envs: int, seed: int) -> dict[str, Any]:
    """
    :return: arguments of each of the environments of a run
    :raises UserInputError: the environments cannot have equal shares of a phase
    """
    length = phase_length(env_id, env_kwargs)
    if length is None:
        return dict(env_kwargs)
    if length % n_envs:
        nearest = max(round(length / n_envs), 1) * n_envs
        raise UserInputError(
            f"--n-envs {n_envs} cannot share phases of {length} steps equally; remedy: --env-kwargs "
            f"'{{\"phase_steps\": {nearest}}}'"
        )
    return {"task_seed": seed, **env_kwargs, "phase_steps": length // n_envs}


def _closest_id(env_id: str) -> str:
    name = env_id.rpartition(":")[2]
    return did_you_mean(name, gym.registry, f"remedy: module:{name}, with the module that registers it")


def _remedy(error: gym.error.DependencyNotInstalled) -> str:
    for extra in _EXTRAS:
        if f"gymnasium[{extra}]" in str(error):
            return f"remedy: pip install 'sb3-vgs-ppo[{extra}]'"
    return str(error)


def _arguments_of(env_id: str) -> list[str]:
    """:return: of a registered environment, or of the plain one within a continual one"""
    spec = gym.spec(env_id.rpartition(":")[2])
    entry_point: Any = gym.spec(spec.kwargs.get("base_id", spec.id)).entry_point
    create = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    parameters = inspect.signature(create).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]


def _normalized_observations(space: spaces.Space[Any]) -> dict[str, Any]:
    """:return: VecNormalize's arguments that leave out what it cannot normalize, and images, which the policy scales"""

    def normalizable(part: spaces.Space[Any]) -> bool:
        return isinstance(part, spaces.Box) and not is_image_space(part)

    if isinstance(space, spaces.Dict):
        keys = [key for key, part in space.items() if normalizable(part)]
        return {"norm_obs": bool(keys), "norm_obs_keys": keys or None}
    return {"norm_obs": normalizable(space)}
