"""A policy's networks as :class:`~sb3_vgs_ppo.ppo.mlp.Mlp`, where they are such: for speed, never for other results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn

from sb3_vgs_ppo.distributional import CategoricalHead, QuantileHead, ScalarHead
from sb3_vgs_ppo.ppo.likelihood import Likelihood, likelihood_of
from sb3_vgs_ppo.ppo.mlp import Mlp

if TYPE_CHECKING:
    from sb3_vgs_ppo.ppo.policies import DistributionalActorCriticPolicy

_BUILDING_BLOCKS = ("extract_features", "_get_action_dist_from_latent", "predict_values")
_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    "forward",  # replaced in this one module
)


class MlpNetworks:
    """
    Actor and critic of a policy with vector observations.

    :param policy: one that :meth:`of` accepts
    """

    def __init__(self, policy: DistributionalActorCriticPolicy) -> None:
        extractor, value_net = policy.mlp_extractor, policy.value_net
        action_net: nn.Linear = policy.action_net  # type: ignore[assignment]  # a module, as SB3 declares it
        self.actor: Mlp = Mlp(extractor.policy_net, action_net, action_net.forward)
        self.critic: Mlp = Mlp(extractor.value_net, value_net, value_net.predict)
        self.log_std: th.Tensor | None = None
        if isinstance(policy.action_dist, DiagGaussianDistribution):
            self.log_std = policy.log_std

    @classmethod
    def of(cls, policy: DistributionalActorCriticPolicy) -> MlpNetworks | None:
        """
        :param policy: any policy
        :return: its networks; None where something about them is not SB3's default (images, gSDE, a feature extractor
            of one's own, an overridden method, a hook, frozen parameters, autocasting, ...), so that the modules
            themselves have to be called
        """
        observed, extractor = policy.observation_space, policy.mlp_extractor
        known = (
            type(policy.action_dist) in (CategoricalDistribution, DiagGaussianDistribution)
            and isinstance(observed, spaces.Box)
            and not (policy.normalize_images and is_image_space(observed))
            and type(policy.pi_features_extractor) is type(policy.vf_features_extractor) is FlattenExtractor
            and type(extractor) is MlpExtractor
            and Mlp.supports(extractor.policy_net)
            and Mlp.supports(extractor.value_net)
            and type(policy.action_net) is nn.Linear
            and type(policy.value_net) in (ScalarHead, QuantileHead, CategoricalHead)
            and not overridden(policy, ActorCriticPolicy, _BUILDING_BLOCKS)
            and not any(_is_hooked(module) for module in policy.modules())
            and not th.is_autocast_enabled(policy.device.type)
        )
        return cls(policy) if known else None

    @staticmethod
    def features(observations: th.Tensor) -> th.Tensor:
        """
        :param observations: (batch, *observation shape), of any dtype
        :return: (batch, in_features), float32
        """
        return observations.float().flatten(1)

    def likelihood(self, outputs: th.Tensor) -> Likelihood:
        """
        :param outputs: of the actor, (batch, k)
        :return: the distributions of actions that they stand for
        """
        return likelihood_of(outputs, self.log_std)


def overridden(instance: object, base: type, names: Iterable[str]) -> bool:
    """:return: whether one of these methods of ``base`` is another one in the instance"""
    own, cls = vars(instance), type(instance)
    return any(name in own or getattr(cls, name) is not getattr(base, name) for name in names)


def _is_hooked(module: nn.Module) -> bool:
    own = vars(module)
    return any(own.get(name) for name in _HOOKS)
