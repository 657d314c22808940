"""Arguments of ``DistributionalPPO`` beyond SB3's: which values and combinations there are."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

from stable_baselines3.common.type_aliases import Schedule

from sb3_vgs_ppo.distributional import ScalarHead
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo.distribution_targets import check_value_target
from sb3_vgs_ppo.ppo.policies import DistributionalActorCriticPolicy
from sb3_vgs_ppo.scaling import check_vgs_kwargs

if TYPE_CHECKING:
    from sb3_vgs_ppo.ppo.dppo import DistributionalPPO


def check_arguments(model: DistributionalPPO) -> None:
    """
    :param model: a model that is not set up
    :raises UserInputError: an argument that cannot be used, with its value and the remedy
    """
    if model.vgs_placement not in ("before_clip", "after_clip"):
        raise UserInputError(f"vgs_placement={model.vgs_placement!r}; remedy: 'before_clip' or 'after_clip'")
    if not isinstance(model.max_nonfinite_updates, Integral) or model.max_nonfinite_updates < 1:
        raise UserInputError(
            f"max_nonfinite_updates={model.max_nonfinite_updates!r}; remedy: a whole number of at least 1"
        )
    if not issubclass(model.policy_class, DistributionalActorCriticPolicy):
        raise UserInputError(
            f"policy {model.policy_class.__name__} has no value head; remedy: 'MlpPolicy', 'CnnPolicy', "
            "'MultiInputPolicy', or a class derived from DistributionalActorCriticPolicy"
        )
    check_vgs_kwargs(model.vgs_kwargs or {}, version_argument="vgs_version")


def check_critic(model: DistributionalPPO, clip_range_vf: float | Schedule | None) -> None:
    """
    :param model: a model with its policy
    :param clip_range_vf: as the user gave it
    :raises UserInputError: the policy's value head cannot do what was asked for
    """
    check_value_target(model.value_target, model.policy.value_head)
    if clip_range_vf is not None and not isinstance(model.policy.value_net, ScalarHead):
        raise UserInputError(
            f"clip_range_vf={clip_range_vf!r} needs a scalar critic, not {model.policy.value_head!r}: "
            "shifting a clipped mean lets the variance of the predicted distribution grow; "
            "remedy: clip_range_vf=None, or policy_kwargs=dict(value_head='scalar')"
        )
