"""What a file says about a model: everything needed to build it again, as plain objects.

Files are read into blueprints (``from_manifest``, ``from_sb3``), models are built from blueprints (``loading``), and a
migration turns one blueprint into another.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gymnasium import spaces

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo.dppo import DistributionalPPO
from sb3_vgs_ppo.ppo.policies import DistributionalActorCriticPolicy

_ELSEWHERE = {"policy", "policy_kwargs", "env", "device", "_init_setup_model"}
ARGUMENTS = tuple(name for name in inspect.signature(DistributionalPPO).parameters if name not in _ELSEWHERE)
"""Arguments of :class:`DistributionalPPO` that a file stores as they are."""

ATTRIBUTES = (
    "num_timesteps",
    "n_envs",
    "_n_updates",
    "_episode_num",
    "_total_timesteps",
    "_current_progress_remaining",
)
"""Attributes of a model that a file sets; no others, because a file must not replace a method."""


class Spaces(NamedTuple):
    """What a policy sees and what it answers with."""

    observation: spaces.Space[Any]
    action: spaces.Space[Any]


@dataclass(frozen=True)
class Blueprint:
    """
    A model that is not built yet.

    :param file: where it comes from, for messages
    :param member: member of the file that describes the model, for messages
    :param policy_class: class of the policy
    :param policy_kwargs: arguments of the policy by name
    :param arguments: arguments of the algorithm by name, out of :data:`ARGUMENTS`
    :param attributes: values by name, out of :data:`ATTRIBUTES`
    :param spaces: what the policy sees and answers with
    :param states: state dicts by name: ``"policy"``, ``"policy.optimizer"`` and, unless it is off, ``"vgs"``
    :param extra: further members of the file that are not SB3's, such as the statistics of ``VecNormalize``
    :param guessed: arguments that the file told to unpicklers only, each with what stands in for it
    """

    file: str
    member: str
    policy_class: type[DistributionalActorCriticPolicy]
    policy_kwargs: dict[str, Any]
    arguments: dict[str, Any]
    attributes: dict[str, Any]
    spaces: Spaces
    states: dict[str, StateDict]
    extra: Mapping[str, bytes] = field(default_factory=dict)
    guessed: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Start of messages about the description."""
        return f"{self.file}: {self.member}"


@dataclass(frozen=True)
class Overrides:
    """
    What the caller says instead of the file.

    :param policy: class of the policy, None for the file's
    :param policy_kwargs: arguments of the policy; the others are the file's
    :param arguments: arguments of the algorithm; the others are the file's
    """

    policy: type[DistributionalActorCriticPolicy] | None = None
    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> Overrides:
        """
        :param given: arguments of :class:`DistributionalPPO` by name
        :return: the same, sorted
        :raises UserInputError: a name that the constructor does not take, or that the loader takes itself
        """
        given = given or {}
        known = (*ARGUMENTS, "policy", "policy_kwargs")
        if unknown := sorted(given.keys() - set(known)):
            raise UserInputError(
                f"overrides: {unknown[0]!r} is not an argument that can be replaced: {', '.join(known)}"
            )
        arguments = {name: value for name, value in given.items() if name in ARGUMENTS}
        return cls(given.get("policy"), given.get("policy_kwargs") or {}, arguments)
