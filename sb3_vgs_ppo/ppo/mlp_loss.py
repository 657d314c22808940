"""The loss of a minibatch and its gradient without autograd, for policies that are multilayer perceptrons.

``DistributionalPPO`` states the loss in the terms of autograd; that statement is the one to read first and the oracle
of this one. Here it is put together from the pieces whose gradients are derived by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch as th

from sb3_vgs_ppo.ppo.gradients import PackedGradients
from sb3_vgs_ppo.ppo.likelihood import GaussianLikelihood
from sb3_vgs_ppo.ppo.minibatch_log import MinibatchLog
from sb3_vgs_ppo.ppo.minibatches import Minibatch
from sb3_vgs_ppo.ppo.mlp_networks import MlpNetworks
from sb3_vgs_ppo.ppo.surrogate import clipped_surrogate_with_gradient, normalized

if TYPE_CHECKING:
    from sb3_vgs_ppo.ppo.dppo import DistributionalPPO


class MlpLoss:
    """
    Evaluates minibatches of one ``train()`` call.

    :param model: algorithm whose policy :meth:`of` accepts
    :param networks: the policy's networks
    """

    def __init__(self, model: DistributionalPPO, networks: MlpNetworks) -> None:
        self._model = model
        self._networks = networks
        self._clip_range = model.clip_range(model._current_progress_remaining)  # type: ignore[operator]

    @classmethod
    def of(cls, model: DistributionalPPO) -> MlpLoss | None:
        """
        :param model: an algorithm that is set up
        :return: the loss of its policy; None where only autograd can derive it
        """
        networks = MlpNetworks.of(model.policy)
        if networks is None or model.clip_range_vf is not None:
            return None
        parameters = list(model.policy.parameters())
        trained = {*map(id, networks.actor.parameters), *map(id, networks.critic.parameters)}
        if isinstance(networks.likelihood, GaussianLikelihood):
            trained.add(id(networks.likelihood.log_std))
        plain = all(
            parameter.requires_grad and not parameter._backward_hooks and not parameter._post_accumulate_grad_hooks
            for parameter in parameters
        )
        alike = len({(parameter.dtype, parameter.device) for parameter in parameters}) == 1
        return cls(model, networks) if plain and alike and trained == set(map(id, parameters)) else None

    def differentiate_into(self, gradients: PackedGradients) -> None:
        """:param gradients: of all parameters of the policy; overwritten by every backward pass"""
        pairs = zip(gradients.parameters, gradients.present(), strict=True)
        of = {id(parameter): gradient for parameter, gradient in pairs}
        networks = self._networks
        self._actor_gradients = [of[id(parameter)] for parameter in networks.actor.parameters]
        self._critic_gradients = [of[id(parameter)] for parameter in networks.critic.parameters]
        if isinstance(networks.likelihood, GaussianLikelihood):
            self._log_std_gradient = of[id(networks.likelihood.log_std)]

    @th.no_grad()
    def __call__(self, minibatch: Minibatch, log: MinibatchLog) -> tuple[th.Tensor, Callable[[], None]]:
        """
        :param minibatch: samples of the rollout, with observations in one tensor
        :param log: takes the figures of the minibatch
        :return: 0-d loss, and a function that overwrites the gradients with its own
        """
        model, networks = self._model, self._networks
        features = networks.features(minibatch.observations)  # type: ignore[arg-type]  # Dict observations have others
        log_prob = networks.likelihood.log_prob(networks.actor.forward(features), minibatch.actions)
        predictions = networks.critic.forward(features)
        log_ratio = log_prob - minibatch.old_log_prob
        advantages = normalized(minibatch.advantages) if model.normalize_advantage else minibatch.advantages
        policy_loss, of_log_prob = clipped_surrogate_with_gradient(log_ratio, advantages, self._clip_range)
        head = model.policy.value_net
        value_loss, of_predictions = head.loss_with_gradient(predictions, minibatch.returns, model.vf_coef)
        entropy_loss = -networks.likelihood.mean_entropy()
        loss = policy_loss.add(entropy_loss, alpha=model.ent_coef).add_(value_loss, alpha=model.vf_coef)
        log.add(policy_gradient_loss=policy_loss, value_loss=value_loss, entropy_loss=entropy_loss)
        log.add_log_ratio(log_ratio)
        log.add_predictions(predictions, minibatch.returns)

        def backward() -> None:
            self._backward(of_log_prob, of_predictions)

        return loss, backward

    @th.no_grad()
    def _backward(self, of_log_prob: th.Tensor, of_predictions: th.Tensor) -> None:
        networks = self._networks
        # Rounded as the backward pass of the mean entropy does
        per_sample = float(-np.float32(self._model.ent_coef) / np.float32(len(of_log_prob)))
        networks.actor.backward(networks.likelihood.backward(of_log_prob, per_sample), self._actor_gradients)
        networks.critic.backward(of_predictions, self._critic_gradients)
        if isinstance(networks.likelihood, GaussianLikelihood):
            self._log_std_gradient.copy_(networks.likelihood.log_std_gradient)
