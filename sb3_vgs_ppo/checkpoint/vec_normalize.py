"""Statistics of SB3's ``VecNormalize`` as tensors: SB3 itself pickles the whole wrapper.

An agent that was trained on normalized observations is worth nothing without them, so they travel inside its
checkpoint.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.errors import CheckpointError

VEC_NORMALIZE = "vec_normalize.pt"
"""Member of a checkpoint; not ``.pth``, which SB3 would load as a state dict of the model."""

_SETTINGS = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")


def vec_normalize_state(env: VecNormalize) -> StateDict:
    """
    :param env: normalizing wrapper
    :return: its settings; ``obs_rms`` and ``ret_rms``, each with ``mean``, ``var`` (float64 tensors of the
        observation's shape, or one of each per key) and ``count``; ``returns``, the running discounted return of each
        environment, (n_envs,)
    """
    state: StateDict = {name: getattr(env, name) for name in _SETTINGS}
    if env.norm_obs:
        obs_rms = env.obs_rms
        state["obs_rms"] = (
            {key: _moments(rms) for key, rms in obs_rms.items()} if isinstance(obs_rms, dict) else _moments(obs_rms)
        )
    return {**state, "ret_rms": _moments(env.ret_rms), "returns": th.from_numpy(env.returns.copy())}


def load_vec_normalize_state(env: VecNormalize, state: StateDict, file: str) -> None:
    """
    Put statistics and settings back; ``returns`` only where the number of environments is the same.

    :param env: wrapper around environments with the same observations; unchanged if the state does not fit
    :param state: as :func:`vec_normalize_state` returns it
    :param file: where the state comes from, for messages
    :raises CheckpointError: names the field that is missing or does not fit
    """
    where = f"{file}: {VEC_NORMALIZE}"
    try:
        loaded: dict[str, Any] = {name: state[name] for name in _SETTINGS}
        loaded["ret_rms"] = _running(state["ret_rms"], (), f"{where}: ret_rms")
        if loaded["norm_obs"]:
            loaded["obs_rms"] = _observation_statistics(env, state["obs_rms"], loaded["norm_obs_keys"], where)
        returns = _array(state["returns"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {error} is missing or of the wrong kind") from error
    if returns.shape == (env.num_envs,):
        loaded["returns"] = returns
    vars(env).update(loaded)


def _observation_statistics(
    env: VecNormalize, state: Any, keys: list[str] | None, where: str
) -> RunningMeanStd | dict[str, RunningMeanStd]:
    space = env.observation_space
    if keys is None:
        return _running(state, space.shape or (), f"{where}: obs_rms")
    return {key: _running(state[key], space[key].shape, f"{where}: obs_rms: {key}") for key in keys}  # type: ignore[index]


def _moments(rms: RunningMeanStd) -> StateDict:
    return {"mean": th.as_tensor(rms.mean).clone(), "var": th.as_tensor(rms.var).clone(), "count": float(rms.count)}


def _running(state: Any, shape: tuple[int, ...], where: str) -> RunningMeanStd:
    rms = RunningMeanStd(shape=shape)
    for name in ("mean", "var"):
        values = _array(state[name])
        if values.shape != shape:
            raise CheckpointError(f"{where}: {name} has shape {values.shape}, the environment's observations {shape}")
        setattr(rms, name, values)
    rms.count = float(state["count"])
    return rms


def _array(values: Any) -> npt.NDArray[np.float64]:
    return th.as_tensor(values, dtype=th.float64).numpy().copy()
