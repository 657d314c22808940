"""The loss of a minibatch and its gradient without autograd, for policies that are multilayer perceptrons.

``DistributionalPPO`` states the loss in the terms of autograd; that statement is the one to read first and the oracle
of this one. Here it is put together from the pieces whose gradients are derived by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch as th

from sb3_vgs_ppo.ppo.gradients import PackedGradients
from sb3_vgs_ppo.ppo.minibatch_log import MinibatchLog
from sb3_vgs_ppo.ppo.minibatches import Minibatch, value_targets
from sb3_vgs_ppo.ppo.mlp_networks import MlpNetworks
from sb3_vgs_ppo.ppo.surrogate import clipped_surrogate_with_gradient, normalized

if TYPE_CHECKING:
    from sb3_vgs_ppo.ppo.dppo import DistributionalPPO


class Coefficients(NamedTuple):
    """
    Numbers of the loss that may change from one ``train()`` to the next.

    :param clip_range: ε
    :param vf_coef: 0-d
    :param ent_coef: 0-d; None for 0, which spares the entropy's gradient
    """

    clip_range: float | th.Tensor
    vf_coef: th.Tensor
    ent_coef: th.Tensor | None

    @classmethod
    def of(cls, model: DistributionalPPO) -> Coefficients:
        """:return: those of an algorithm that is set up, at this point of its training"""
        like = next(model.policy.parameters())
        # Filled where they are needed, which on an accelerator nothing waits for
        ent_coef = like.new_full((), model.ent_coef) if model.ent_coef else None
        clip_range = model.clip_range(model._current_progress_remaining)  # type: ignore[operator]
        return cls(clip_range, like.new_full((), model.vf_coef), ent_coef)

    def as_tensors(self) -> Coefficients:
        """:return: the same with a 0-d clip range, which takes part in float32 operations as the number does"""
        return self._replace(clip_range=th.as_tensor(self.clip_range, dtype=th.float64))


class Figures(NamedTuple):
    """What is found out about a minibatch on the way to its gradient; losses are 0-d."""

    loss: th.Tensor
    policy_loss: th.Tensor
    value_loss: th.Tensor
    entropy_loss: th.Tensor
    log_ratio: th.Tensor
    predictions: th.Tensor

    def enter(self, log: MinibatchLog, returns: th.Tensor) -> None:
        """
        :param log: takes all but the loss, which is entered where it is known to be used
        :param returns: λ-returns of the minibatch, (batch,)
        """
        log.add(policy_gradient_loss=self.policy_loss, value_loss=self.value_loss, entropy_loss=self.entropy_loss)
        log.add_log_ratio(self.log_ratio)
        log.add_predictions(self.predictions, returns)


class MlpLoss:
    """
    Evaluates minibatches of one ``train()`` call.

    :param model: algorithm whose policy :meth:`of` accepts
    :param networks: the policy's networks
    """

    def __init__(self, model: DistributionalPPO, networks: MlpNetworks) -> None:
        self._networks = networks
        self._head = model.policy.value_net
        self._normalize_advantage = model.normalize_advantage
        self.coefficients: Coefficients = Coefficients.of(model)
        self.parameters: list[th.nn.Parameter] = list(model.policy.parameters())
        self._gradients: Sequence[th.Tensor] = ()
        index = {id(parameter): i for i, parameter in enumerate(self.parameters)}
        self._actor = [index[id(parameter)] for parameter in networks.actor.parameters]
        self._critic = [index[id(parameter)] for parameter in networks.critic.parameters]
        self._log_std = index.get(id(networks.log_std))

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
        if networks.log_std is not None:
            trained.add(id(networks.log_std))
        plain = all(
            parameter.requires_grad and not parameter._backward_hooks and not parameter._post_accumulate_grad_hooks
            for parameter in parameters
        )
        alike = len({(parameter.dtype, parameter.device) for parameter in parameters}) == 1
        return cls(model, networks) if plain and alike and trained == set(map(id, parameters)) else None

    def differentiate_into(self, gradients: PackedGradients) -> None:
        """:param gradients: of all parameters of the policy; overwritten by every backward pass"""
        self._gradients = gradients.present()

    @th.no_grad()
    def __call__(self, minibatch: Minibatch, log: MinibatchLog) -> tuple[th.Tensor, Callable[[], None]]:
        """
        :param minibatch: samples of the rollout, with observations in one tensor
        :param log: takes the figures of the minibatch
        :return: 0-d loss, and a function that overwrites the gradients with its own
        """
        figures, backward = self.evaluate(minibatch, self.coefficients)
        figures.enter(log, minibatch.returns)
        return figures.loss, lambda: backward(self._gradients)

    def evaluate(
        self, minibatch: Minibatch, coefficients: Coefficients
    ) -> tuple[Figures, Callable[[Sequence[th.Tensor]], None]]:
        """
        :param minibatch: as above
        :param coefficients: of the loss
        :return: figures, and a function that overwrites tensors, given in the order of the policy's parameters, with
            the gradient of the loss
        """
        networks = self._networks
        clip_range, vf_coef, ent_coef = coefficients
        features = networks.features(minibatch.observations)  # type: ignore[arg-type]  # Dict observations have others
        outputs, actor_inputs = networks.actor.forward(features)
        likelihood = networks.likelihood(outputs)
        log_ratio = likelihood.log_prob(minibatch.actions) - minibatch.old_log_prob
        predictions, critic_inputs = networks.critic.forward(features)
        advantages = normalized(minibatch.advantages) if self._normalize_advantage else minibatch.advantages
        policy_loss, of_log_prob = clipped_surrogate_with_gradient(log_ratio, advantages, clip_range)
        value_loss, of_predictions = self._head.loss_with_gradient(predictions, value_targets(minibatch), vf_coef)
        entropy_loss = -likelihood.mean_entropy()
        loss = policy_loss.addcmul(vf_coef, value_loss)
        if ent_coef is not None:
            loss.addcmul_(ent_coef, entropy_loss)

        @th.no_grad()
        def backward(into: Sequence[th.Tensor]) -> None:
            of_entropy = None if ent_coef is None else -ent_coef / len(of_log_prob)
            of_outputs = likelihood.backward(of_log_prob, of_entropy)
            networks.actor.backward(of_outputs, actor_inputs, [into[i] for i in self._actor])
            networks.critic.backward(of_predictions, critic_inputs, [into[i] for i in self._critic])
            if self._log_std is not None and likelihood.log_std_gradient is not None:
                into[self._log_std].copy_(likelihood.log_std_gradient)

        return Figures(loss, policy_loss, value_loss, entropy_loss, log_ratio, predictions), backward
