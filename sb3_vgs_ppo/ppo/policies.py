"""Actor-critic policies whose critic predicts the distribution of returns.

SB3's :class:`ActorCriticPolicy` builds the networks; then its linear ``value_net`` is replaced by one of the heads of
:mod:`sb3_vgs_ppo.distributional`. A head called like ``value_net`` answers with the mean of its distribution, so
SB3's ``forward`` and ``predict_values`` (and with them rollout buffer, GAE and time-limit bootstrapping) work
unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    MlpExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_vgs_ppo._types import ValueHeadName
from sb3_vgs_ppo.distributional import Prediction, ScalarHead, ValueDistribution, ValueHead, make_value_head
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.ppo.mlp_networks import MlpNetworks


def add_layer_norm(extractor: MlpExtractor) -> None:
    """
    Normalize the outputs of every linear layer of actor and critic, before they reach their activation.

    :param extractor: the hidden layers, as SB3 builds them
    """
    for name in ("policy_net", "value_net"):
        layers: list[nn.Module] = []
        for layer in getattr(extractor, name):
            layers.append(layer)
            if isinstance(layer, nn.Linear):
                layers.append(nn.LayerNorm(layer.out_features, device=layer.weight.device))
        setattr(extractor, name, nn.Sequential(*layers))


class DistributionalActorCriticPolicy(ActorCriticPolicy):
    """
    Policy and value networks with a choice of value head; used by :class:`DistributionalPPO` as ``MlpPolicy``.

    Arguments that are not listed here are those of :class:`stable_baselines3.common.policies.ActorCriticPolicy`.

    :param value_head: ``"quantile"``, ``"categorical"`` or ``"scalar"`` (SB3's critic)
    :param n_quantiles: number of quantiles of the quantile head (32 if None)
    :param huber_kappa: threshold of the quantile Huber loss, in units of the return (1.0 if None)
    :param n_atoms: number of atoms of the categorical head (101 if None)
    :param value_transform: ``"symlog"`` (symexp-spaced atoms, two-hot targets; if None) or ``"none"``
        (evenly spaced atoms, HL-Gauss targets) of the categorical head. Of the latter's atoms, at least 8, three lie
        below ``v_min`` and three above ``v_max``, so that returns at the borders are not biased
    :param v_min: smallest return that is represented; required by and only used with ``value_transform="none"``
    :param v_max: largest return that is represented, likewise
    :param layer_norm: normalize the inputs of every activation of the hidden layers (Ba, Kiros & Hinton 2016), which
        keeps units of long trainings from saturating (Lyle et al. 2023). False, as in SB3, by default
    :param features_extractor_class: None takes the class that fits the observations of this policy
        (flatten, NatureCNN or CombinedExtractor)
    :param optimizer_class: :class:`AdaptiveUPGD` by default
    :param optimizer_kwargs: keyword arguments of the optimizer without the learning rate. As in SB3, Adam without any
        gets ``eps=1e-5``
    :raises UserInputError: (a ValueError) a value-head argument that the chosen head does not use or cannot take,
        or ``lr`` inside ``optimizer_kwargs``
    """

    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    optimizer: th.optim.Optimizer
    value_net: ValueHead  # type: ignore[assignment]  # SB3 declares nn.Linear; a head is its drop-in

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        use_sde: bool = False,
        log_std_init: float = 0.0,
        full_std: bool = True,
        use_expln: bool = False,
        squash_output: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = True,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = AdaptiveUPGD,
        optimizer_kwargs: dict[str, Any] | None = None,
        *,
        layer_norm: bool = False,
        value_head: ValueHeadName = "quantile",
        n_quantiles: int | None = None,
        huber_kappa: float | None = None,
        n_atoms: int | None = None,
        value_transform: str | None = None,
        v_min: float | None = None,
        v_max: float | None = None,
    ) -> None:
        if optimizer_kwargs is not None and "lr" in optimizer_kwargs:
            raise UserInputError(
                f"optimizer_kwargs has lr={optimizer_kwargs['lr']!r}, which the learning-rate schedule would "
                "overwrite; remedy: pass learning_rate to the algorithm instead"
            )
        self.layer_norm = layer_norm  # before SB3 builds the networks
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch,
            activation_fn,
            ortho_init,
            use_sde,
            log_std_init,
            full_std,
            use_expln,
            squash_output,
            features_extractor_class or self.default_features_extractor_class,
            features_extractor_kwargs,
            share_features_extractor,
            normalize_images,
            optimizer_class,
            optimizer_kwargs,
        )
        self._networks: MlpNetworks | None = None
        self.value_head = value_head
        options = {
            "n_quantiles": n_quantiles,
            "huber_kappa": huber_kappa,
            "n_atoms": n_atoms,
            "value_transform": value_transform,
            "v_min": v_min,
            "v_max": v_max,
        }
        self.value_head_kwargs: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        self._replace_value_net(lr_schedule)

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        if self.layer_norm:
            add_layer_norm(self.mlp_extractor)

    def _replace_value_net(self, lr_schedule: Schedule) -> None:
        """Put the head in the place of SB3's ``value_net`` and let the optimizer know its parameters."""
        built = self.value_net
        if not isinstance(built, nn.Linear):
            raise TypeError(f"expected SB3 to build nn.Linear as value_net, got {type(built).__name__}")
        self.value_net = make_value_head(self.value_head, built, **self.value_head_kwargs)
        if isinstance(self.value_net, ScalarHead):
            return  # it shares SB3's parameters, which the optimizer has already
        self.value_net.init_weights(ortho=self.ortho_init)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            layer_norm=self.layer_norm,
            value_head=self.value_head,
            share_features_extractor=self.share_features_extractor,  # SB3 leaves it out and rebuilds a shared one
            **self.value_head_kwargs,
        )
        return data

    @contextmanager
    def acting(self) -> Iterator[None]:
        """
        Inside the context nobody replaces or hooks parts of the policy, so that :meth:`forward` need not ask each time
        whether it may take the short way.
        """
        self._networks = MlpNetworks.of(self)
        try:
            yield
        finally:
            self._networks = None

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        SB3's ``forward``; inside :meth:`acting` and without autograd in fewer steps where the networks allow it, with
        the same random numbers and the same results.

        :param obs: observations, (batch, *observation shape) or a dict of such
        :param deterministic: take the mode of the action distribution instead of drawing
        :return: actions (batch, *action shape), values (batch, 1) and log-probabilities (batch,)
        """
        networks = self._networks
        if networks is None or th.is_grad_enabled():
            return super().forward(obs, deterministic)  # type: ignore[arg-type]  # SB3 forgets Dict observations
        features = networks.features(obs)  # type: ignore[arg-type]  # Dict observations have no such networks
        predictions, _ = networks.critic.forward(features)
        outputs, _ = networks.actor.forward(features)
        actions, log_prob = networks.likelihood(outputs).sample(deterministic)
        actions = actions.reshape((-1, *self.action_space.shape))  # type: ignore[misc]
        return actions, self.value_net.mean(predictions), log_prob

    def evaluate_with_predictions(
        self, obs: PyTorchObs, actions: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """
        Like SB3's ``evaluate_actions``, with the head's raw predictions in the place of the mean value.

        The order of operations is SB3's: gradients of shared layers are summed in the order of the graph, and parity
        with SB3 is bit for bit.

        :param obs: observations, (batch, *observation shape) or a dict of such
        :param actions: actions, (batch,) or (batch, *action shape)
        :return: predictions (batch, k) of the value head, log-probabilities (batch,), and entropy (batch,) or None
            where it has no analytical form
        """
        features = self.extract_features(obs)
        if self.share_features_extractor:
            latent_pi, latent_vf = self.mlp_extractor(features)
        else:
            pi_features, vf_features = features
            latent_pi = self.mlp_extractor.forward_actor(pi_features)
            latent_vf = self.mlp_extractor.forward_critic(vf_features)
        distribution = self._get_action_dist_from_latent(latent_pi)
        log_prob = distribution.log_prob(actions)
        predictions = self.value_net.predict(latent_vf)
        entropy = distribution.entropy()
        return predictions, log_prob, entropy

    def predict_value_distribution(self, obs: PyTorchObs) -> Prediction:
        """
        Predicted distribution of the return from the given observations.

        :param obs: observations, (batch, *observation shape) or a dict of such
        :return: quantile head: quantiles (batch, n_quantiles) at the midpoints (k + 1/2) / n_quantiles, not sorted;
            categorical head: atoms (n_atoms,) and probabilities (batch, n_atoms);
            scalar head: the value (batch, 1). All in units of the return
        """
        features = BasePolicy.extract_features(self, obs, self.vf_features_extractor)
        latent_vf = self.mlp_extractor.forward_critic(features)
        return self.value_net.distribution(self.value_net.predict(latent_vf))

    def value_distribution(self, observation: np.ndarray | dict[str, np.ndarray]) -> ValueDistribution:
        """
        Predicted distribution of the return, as an object to ask for its mean, quantiles and tail.

        :param observation: one observation or a batch, as for ``predict``
        :return: the distribution of one observation, or those of a batch, batch shape (batch,)
        :raises UserInputError: the critic is scalar
        """
        if isinstance(self.value_net, ScalarHead):
            raise UserInputError(
                "value_head='scalar' predicts the mean return and no distribution; "
                "remedy: policy_kwargs=dict(value_head='quantile') or 'categorical'"
            )
        self.set_training_mode(False)
        tensors, is_batch = self.obs_to_tensor(observation)
        with th.no_grad():
            distribution = ValueDistribution.of(self.predict_value_distribution(tensors))
        return distribution if is_batch else distribution[0]


class DistributionalActorCriticCnnPolicy(DistributionalActorCriticPolicy):
    """``CnnPolicy``: image observations through SB3's NatureCNN."""

    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = NatureCNN


class DistributionalMultiInputActorCriticPolicy(DistributionalActorCriticPolicy):
    """``MultiInputPolicy``: Dict observations through SB3's CombinedExtractor."""

    default_features_extractor_class: ClassVar[type[BaseFeaturesExtractor]] = CombinedExtractor


MlpPolicy = DistributionalActorCriticPolicy
CnnPolicy = DistributionalActorCriticCnnPolicy
MultiInputPolicy = DistributionalMultiInputActorCriticPolicy
