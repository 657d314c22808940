"""What a checkpoint says about a model besides its tensors: everything needed to rebuild it without unpickling."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from sb3_vgs_ppo.checkpoint import Manifest, dump_tensors
from sb3_vgs_ppo.checkpoint.vec_normalize import VEC_NORMALIZE, vec_normalize_state

if TYPE_CHECKING:
    from sb3_vgs_ppo.ppo.dppo import DistributionalPPO

_NOT_ARGUMENTS = {"self", "policy", "env", "policy_kwargs", "_init_setup_model"}
_STORED_AS = {"stats_window_size": "_stats_window_size"}  # SB3 keeps this argument under another name
_ATTRIBUTES = ("n_envs", "_n_updates", "_episode_num", "_total_timesteps", "_current_progress_remaining")


def describe(model: DistributionalPPO) -> Manifest:
    """
    :param model: a model that is set up
    :return: its manifest, without members
    """
    names = [name for name in inspect.signature(type(model).__init__).parameters if name not in _NOT_ARGUMENTS]
    return Manifest.describe(
        algorithm=type(model),
        arguments={name: getattr(model, _STORED_AS.get(name, name)) for name in names},
        policy_class=model.policy_class,
        policy_kwargs=model.policy_kwargs,
        observation_space=model.observation_space,
        action_space=model.action_space,
        num_timesteps=model.num_timesteps,
        attributes={name: getattr(model, name) for name in _ATTRIBUTES},
        value_head=model.policy.value_head,
        optimizer_class=type(model.policy.optimizer),
    )


def environment_members(model: DistributionalPPO) -> dict[str, bytes]:
    """
    :param model: a model with or without an environment
    :return: statistics of its ``VecNormalize`` as a member of the checkpoint, nothing if it has none
    """
    normalizer = model.get_vec_normalize_env()
    return {} if normalizer is None else {VEC_NORMALIZE: dump_tensors(vec_normalize_state(normalizer))}
