"""Snapshots of gymnasium's MuJoCo environments.

MuJoCo's integration state decides how the physics goes on, bit for bit (mujoco.readthedocs.io, "State and control").
The environments also read what the last step has left in the other arrays (Ant and Humanoid: positions of bodies and
contact forces), so these are kept as well.
"""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.runs.plain_values import from_plain, to_plain

_MODULES = re.compile(r"gymnasium\.envs\.mujoco\.\w+_v5")
_ATTRIBUTES = {"ReacherEnv": ("goal",), "PusherEnv": ("goal_pos", "cylinder_pos")}


def is_mujoco(env: gym.Env[Any, Any]) -> bool:
    """:return: whether this is one of gymnasium's MuJoCo environments, of the version whose snapshots are tested"""
    return _MODULES.fullmatch(type(env).__module__) is not None


def mujoco_state(env: Any) -> StateDict:
    """
    :param env: MuJoCo environment without wrappers
    :return: integration state, all arrays of ``mjData`` by name, and attributes of the environment
    """
    import mujoco  # type: ignore[import-untyped]

    size = mujoco.mj_stateSize(env.model, mujoco.mjtState.mjSTATE_INTEGRATION)
    integration = np.empty(size)
    mujoco.mj_getState(env.model, env.data, integration, mujoco.mjtState.mjSTATE_INTEGRATION)
    attributes = {name: getattr(env, name) for name in _ATTRIBUTES.get(type(env).__name__, ())}
    state: StateDict = to_plain({"integration": integration, "arrays": _arrays(env.data), "attributes": attributes})
    return state


def load_mujoco_state(env: Any, state: StateDict) -> None:
    """
    :param env: MuJoCo environment without wrappers, after a reset
    :param state: as :func:`mujoco_state` returned it
    """
    import mujoco

    values = from_plain(state)
    mujoco.mj_setState(env.model, env.data, values["integration"], mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, array in _arrays(env.data).items():
        stored = values["arrays"].get(name)
        if stored is not None and stored.shape == array.shape:  # those of contacts, computed in every step, vary
            array[...] = stored
    vars(env).update(values["attributes"])


def _arrays(data: Any) -> dict[str, npt.NDArray[Any]]:
    values = {name: getattr(data, name) for name in dir(data) if not name.startswith("_")}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray) and value.ndim > 0}
