"""Blueprints from checkpoints: everything but what only pickle could store is in the manifest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gymnasium import spaces

from sb3_vgs_ppo.checkpoint import Checkpoint
from sb3_vgs_ppo.checkpoint.encoding import unsupported_fields
from sb3_vgs_ppo.checkpoint.manifest import MANIFEST
from sb3_vgs_ppo.checkpoint.sb3_zip import DATA
from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.ppo.blueprint import ATTRIBUTES, Blueprint, Overrides, Spaces
from sb3_vgs_ppo.ppo.dppo import DistributionalPPO
from sb3_vgs_ppo.ppo.from_sb3 import extra_members, state_dicts, unpickle_data

_DESCRIPTION = ("arguments", "policy_class", "policy_kwargs", "observation_space", "action_space")


def blueprint_from_manifest(
    checkpoint: Checkpoint, given_spaces: Spaces | None, overrides: Overrides, *, trust_pickle: bool
) -> Blueprint:
    """
    :param checkpoint: a checkpoint of this package
    :param given_spaces: those of the caller's environment, None without one
    :param overrides: what the caller says instead of the file
    :param trust_pickle: unpickle what the manifest could not store (nothing else)
    :return: the model's description
    :raises CheckpointError: another algorithm's, damaged, other spaces than those given, or something is missing that
        only pickle could store
    """
    manifest = checkpoint.manifest
    file = checkpoint.archive.file
    if manifest.algorithm != DistributionalPPO.__name__:
        raise CheckpointError(
            f"{file}: {MANIFEST}: algorithm: {manifest.algorithm!r} is not {DistributionalPPO.__name__}; "
            "load it with the class that saved it"
        )
    unpickled: dict[str, Any] = {}
    if trust_pickle:
        unpickled, overrides = _unpickle_gaps(checkpoint, overrides)
    policy_class = overrides.policy or checkpoint.decode("policy_class")
    arguments = checkpoint.decode("arguments", without={"device", *overrides.arguments})
    policy_kwargs = checkpoint.decode("policy_kwargs", without=overrides.policy_kwargs.keys())
    attributes = checkpoint.decode("attributes", without=manifest.attributes.keys() - set(ATTRIBUTES))
    return Blueprint(
        file=file,
        member=MANIFEST,
        policy_class=policy_class,
        policy_kwargs={**policy_kwargs, **overrides.policy_kwargs},
        arguments={**arguments, **overrides.arguments},
        attributes={**attributes, "num_timesteps": manifest.num_timesteps},
        spaces=Spaces(
            _space(checkpoint, "observation_space", unpickled, given_spaces and given_spaces.observation),
            _space(checkpoint, "action_space", unpickled, given_spaces and given_spaces.action),
        ),
        states=state_dicts(checkpoint.archive),
        extra=extra_members(checkpoint.archive),
    )


def _unpickle_gaps(checkpoint: Checkpoint, overrides: Overrides) -> tuple[dict[str, Any], Overrides]:
    """:return: what the manifest could not store, by its name in SB3's data; overrides with it added"""
    gaps = unsupported_fields({name: getattr(checkpoint.manifest, name) for name in _DESCRIPTION})
    names = {gap.removeprefix("arguments.").partition(".")[0].partition("[")[0] for gap in gaps}
    if not names:
        return {}, overrides
    values = unpickle_data(checkpoint.archive[DATA], names, checkpoint.archive.file)
    return values, replace(
        overrides,
        policy=overrides.policy or values.get("policy_class"),
        policy_kwargs={**values.get("policy_kwargs", {}), **overrides.policy_kwargs},
        arguments={**{name: values[name] for name in values.keys() - set(_DESCRIPTION)}, **overrides.arguments},
    )


def _space(
    checkpoint: Checkpoint, field: str, unpickled: dict[str, Any], given: spaces.Space[Any] | None
) -> spaces.Space[Any]:
    if field in unpickled:
        stored: spaces.Space[Any] = unpickled[field]
    elif given is not None and unsupported_fields(getattr(checkpoint.manifest, field)):
        return given
    else:
        stored = checkpoint.space(field)
    if given is not None and given != stored:
        raise CheckpointError(
            f"{checkpoint.archive.file}: {MANIFEST}: {field}: {stored} is not that of the given environment, {given}"
        )
    return stored
