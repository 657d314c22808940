"""Loading models without trusting the file: JSON and ``torch.load(weights_only=True)`` in the place of pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch as th
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_vgs_ppo.checkpoint import MANIFEST, Archive, Limits, load_tensors, open_checkpoint, read_archive
from sb3_vgs_ppo.checkpoint.archive import PathOrFile
from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.checkpoint.tensors import is_torch_file
from sb3_vgs_ppo.checkpoint.vec_normalize import VEC_NORMALIZE, load_vec_normalize_state
from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.ppo.blueprint import Blueprint, Overrides, Spaces
from sb3_vgs_ppo.ppo.checks import (
    check_optimizer_state,
    check_policy,
    check_rollout_size,
    check_values,
    compare_shapes,
    located,
)
from sb3_vgs_ppo.ppo.dppo import DistributionalPPO
from sb3_vgs_ppo.ppo.from_manifest import blueprint_from_manifest
from sb3_vgs_ppo.ppo.from_sb3 import blueprint_from_sb3


def load_checkpoint(
    path: PathOrFile,
    env: GymEnv | str | None = None,
    *,
    trust_pickle: bool = False,
    device: th.device | str = "auto",
    overrides: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> DistributionalPPO:
    """
    Load a model from an untrusted file. Nothing in it is unpickled or executed.

    The model is the one that :meth:`DistributionalPPO.load` gives, bit for bit, and learns on alike; only what that
    finds in pickles and no learning depends on (the episodes of ``rollout/ep_rew_mean``) starts empty.

    A zip of plain SB3 ``PPO`` gives the model that equals it bit for bit: scalar critic, its optimizer, and VGS off
    unless the file holds the state of a scaler. Its spaces come from ``env``. What it tells in pickles only has to be
    given in ``overrides``; :func:`sb3_vgs_ppo.migrate_checkpoint` makes a file that needs neither.

    :param path: checkpoint, or zip of SB3 (``.zip`` is tried when there is no such file), or open binary file
    :param env: environment to go on learning in, or its id; its spaces must be the file's. An agent that was trained
        behind ``VecNormalize`` needs an environment in a ``VecNormalize``, into which the file's statistics are put.
        None is enough for predictions
    :param trust_pickle: unpickle the values that only pickle could store (a learning-rate function, a user's policy
        class, the spaces of an SB3 zip). **This runs whatever code the file holds**
    :param device: where the model is put; ``"auto"`` for a GPU if there is one
    :param overrides: arguments of :class:`DistributionalPPO` by name that replace the file's, such as
        ``{"learning_rate": schedule}``; those in its ``policy_kwargs`` replace single ones
    :param limits: how much the file, and the rollout that it asks for, may take
    :return: the model
    :raises CheckpointError: the file is none of these, damaged, from a newer version, of another environment, or
        refused as unsafe; it names file, member and reason
    :raises UserInputError: an override that is not an argument
    :raises OSError: the file cannot be opened
    """
    archive = read_archive(path, limits)
    vec_env = None if env is None else DistributionalPPO._wrap_env(maybe_make_env(env, verbose=0))
    blueprint = read_blueprint(
        archive,
        None if vec_env is None else Spaces(vec_env.observation_space, vec_env.action_space),
        trust_pickle=trust_pickle,
        overrides=Overrides.of(overrides),
    )
    if blueprint.guessed:
        raise CheckpointError(
            f"{blueprint.where}: {', '.join(sorted(blueprint.guessed))}: known to unpicklers only; give it in "
            "overrides, let migrate put a guess in its place, or use trust_pickle=True if you trust the file's author"
        )
    model = build_model(blueprint, vec_env, device=device, limits=limits)
    if vec_env is not None:
        _restore_normalization(blueprint, vec_env)
    return model


def read_blueprint(
    archive: Archive, spaces: Spaces | None, *, trust_pickle: bool = False, overrides: Overrides | None = None
) -> Blueprint:
    """
    Describe the model in a file.

    :param archive: the file
    :param spaces: those of the caller's environment, None without one
    :param trust_pickle: see :func:`load_checkpoint`
    :param overrides: what the caller says instead of the file
    :return: the description, whose values and sizes are not checked yet
    :raises CheckpointError: the file cannot be understood
    """
    if is_torch_file(list(archive.members)):
        raise CheckpointError(f"{archive.file}: a bare state dict and no model; load it into a VarianceGradientScaler")
    if MANIFEST in archive.members:
        checkpoint = open_checkpoint(archive)
        return blueprint_from_manifest(checkpoint, spaces, overrides or Overrides(), trust_pickle=trust_pickle)
    return blueprint_from_sb3(archive, spaces, overrides or Overrides(), trust_pickle=trust_pickle)


def build_model(
    blueprint: Blueprint,
    env: VecEnv | None = None,
    *,
    device: th.device | str = "auto",
    limits: Limits | None = None,
) -> DistributionalPPO:
    """
    Build the model that a blueprint describes, in the order of SB3's ``load``, so that random draws are the same.

    :param blueprint: the description
    :param env: environment with the blueprint's spaces
    :param device: see :func:`load_checkpoint`
    :param limits: see :func:`load_checkpoint`
    :return: the model, with its state
    :raises CheckpointError: the description does not fit itself or the tensors
    """
    device = get_device(device)
    check_values(blueprint)
    n_envs = blueprint.attributes.get("n_envs", 1) if env is None else env.num_envs
    check_rollout_size(blueprint, n_envs, (limits or Limits()).max_total_bytes)
    check_policy(blueprint)
    with as_checkpoint_error(blueprint.where):
        model = DistributionalPPO(
            blueprint.policy_class,
            env,  # type: ignore[arg-type]  # as in SB3's load, the spaces are set below
            policy_kwargs=dict(blueprint.policy_kwargs),
            device=device,
            _init_setup_model=False,
            **blueprint.arguments,
        )
        model.observation_space, model.action_space = blueprint.spaces
        vars(model).update(blueprint.attributes, n_envs=n_envs)
        model._setup_model()
    _set_states(model, blueprint)
    if model.use_sde:
        model.policy.reset_noise()
    return model


def _set_states(model: DistributionalPPO, blueprint: Blueprint) -> None:
    compare_shapes(model.policy.state_dict(), blueprint.states["policy"], f"{blueprint.file}: policy.pth")
    check_optimizer_state(model.policy, blueprint.states["policy.optimizer"], f"{blueprint.file}: policy.optimizer.pth")
    if unknown := sorted(blueprint.states.keys() - {"policy", "policy.optimizer", "vgs"}):
        raise CheckpointError(f"{blueprint.file}: {unknown[0]}.pth: the model has no such part")
    with located(blueprint.file):
        model.set_parameters(blueprint.states, device=model.device)  # type: ignore[arg-type]  # SB3 forgets the nesting


def _restore_normalization(blueprint: Blueprint, env: VecEnv) -> None:
    """:raises CheckpointError: the agent was trained on normalized observations or rewards, and ``env`` has others"""
    if VEC_NORMALIZE not in blueprint.extra:
        return
    normalizer = unwrap_vec_normalize(env)
    if normalizer is None:
        raise CheckpointError(
            f"{blueprint.file}: {VEC_NORMALIZE}: the agent was trained behind VecNormalize, and the environment is in "
            "none; give VecNormalize(env), into which the file's statistics are put"
        )
    state = load_tensors(blueprint.extra[VEC_NORMALIZE], blueprint.file, VEC_NORMALIZE)
    load_vec_normalize_state(normalizer, state, blueprint.file)
