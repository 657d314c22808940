"""Atari games of ``ale-py``: their ids, SB3's preprocessing, and snapshots of the emulator.

The wrappers are those of SB3's ``AtariWrapper``, in its order. But there the ``Monitor`` is within all of them and
counts frames, so that curves of its episodes would end at four times the steps of the run; here it counts the agent's.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.atari_wrappers import AtariWrapper, MaxAndSkipEnv, NoopResetEnv
from stable_baselines3.common.env_util import unwrap_wrapper
from stable_baselines3.common.monitor import Monitor

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.plain_values import from_plain, to_plain

FRAME_SKIP = 4
"""Frames of an action unless ``env_kwargs`` has a ``frameskip``, as in Mnih et al. (2015) and in SB3."""

_IDS = re.compile(r"ALE/|\w+NoFrameskip-v\d")


def register_atari(env_id: str) -> None:
    """
    Register the games, which gymnasium does not do by itself, where an id is one of theirs.

    :raises UserInputError: ``ale-py``, or OpenCV for the preprocessing, is not installed
    """
    if not _IDS.match(env_id.removeprefix("ale_py:")):
        return
    try:
        for module in ("ale_py", "cv2"):
            importlib.import_module(module)
    except ImportError as error:
        raise UserInputError(
            f"--env-id {env_id!r}: a package is missing; remedy: pip install 'sb3-vgs-ppo[atari]'"
        ) from error


def skip_frames(env: gym.Env[Any, Any], env_id: str, env_kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    """
    The inner half of SB3's preprocessing, for which no ``Monitor`` should count steps: begin with up to 30 no-ops, and
    repeat actions for ``frameskip`` frames, of which the agent sees the maximum of the last two.

    :param env: any environment, as it was registered
    :param env_id: its id
    :param env_kwargs: arguments with which it was made
    :return: an Atari game in these wrappers, which skip frames instead of the emulator; another environment, or a game
        with other observations than RGB images or with continuous actions, as it is
    """
    if not _is_image_game(env):
        return env
    env.close()
    env = gym.make(env_id, **{**env_kwargs, "frameskip": 1})
    return MaxAndSkipEnv(NoopResetEnv(env), env_kwargs.get("frameskip", FRAME_SKIP))


def preprocess(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """
    The outer half: episodes of one life, FIRE where a game waits for it, 84 x 84 grey images, rewards -1, 0 or 1.

    :param env: any environment in a ``Monitor``, from :func:`skip_frames`
    :return: an Atari game in these wrappers; what :func:`skip_frames` left alone, as it is
    """
    return AgentSteps(AtariWrapper(env, noop_max=0, frame_skip=1)) if _is_image_game(env) else env


class AgentSteps(gym.Wrapper[Any, Any, Any, Any]):
    """
    Takes those steps out of the ``Monitor`` within that a reset makes, for FIRE and after a lost life: lengths of
    episodes are then steps of the agent, and curves over them have the run's steps.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        monitor = unwrap_wrapper(self.env, Monitor)
        assert isinstance(monitor, Monitor)
        episode, n_steps = monitor.rewards, len(monitor.rewards)
        result = self.env.reset(seed=seed, options=options)
        if monitor.rewards is not episode:  # a new game
            monitor.rewards.clear()
        elif n_steps > 0:
            episode[n_steps - 1 :] = [sum(episode[n_steps - 1 :])]
        return result


def is_atari(env: gym.Env[Any, Any]) -> bool:
    """:return: whether this is the emulator itself"""
    return (type(env).__module__, type(env).__name__) == ("ale_py.env", "AtariEnv")


def atari_state(env: Any) -> StateDict:
    """
    Take a snapshot, after which the game has forgotten its last action. A sticky action (``repeat_action_probability``)
    repeats it, but the emulator's state does not have it: so the next action is the first, here and in what is loaded.

    :param env: game without wrappers
    :return: state of the emulator with its random generator, which decides how the game goes on
    """
    state = env.ale.cloneState(include_rng=True)
    _restore(env, state)
    return {"emulator": to_plain(np.frombuffer(state.serialize(), np.uint8))}


def load_atari_state(env: Any, state: StateDict) -> None:
    """
    :param env: game without wrappers, after a reset
    :param state: as :func:`atari_state` returned it
    """
    import ale_py

    _restore(env, ale_py.ALEState(from_plain(state["emulator"]).tobytes()))


def _restore(env: Any, state: Any) -> None:
    env.ale.reset_game()  # which alone forgets the last action
    env.ale.restoreState(state)


def _is_image_game(env: gym.Env[Any, Any]) -> bool:
    is_image = len(env.observation_space.shape or ()) == 3
    return is_atari(env.unwrapped) and is_image and isinstance(env.action_space, spaces.Discrete)
