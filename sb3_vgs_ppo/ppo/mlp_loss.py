"""The loss of a minibatch and its gradient without autograd, for policies that are multilayer perceptrons.

``DistributionalPPO`` states the loss in the terms of autograd; that statement is the one to read first and the oracle
of this one. Here it is put together from the pieces whose gradients are derived by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch as th

from sb3_vgs_ppo.distributional import ScalarHead
from sb3_vgs_ppo.ppo.gradients import PackedGradients
from sb3_vgs_ppo.ppo.minibatch_log import MinibatchLog
from sb3_vgs_ppo.ppo.minibatches import Minibatch, value_targets
from sb3_vgs_ppo.ppo.mlp_networks import MlpNetworks
from sb3_vgs_ppo.ppo.policy_terms import Coefficients, policy_terms, policy_terms_by_loops

if TYPE_CHECKING:
    from sb3_vgs_ppo.ppo.dppo import DistributionalPPO


def coefficients_of(model: DistributionalPPO) -> Coefficients:
    """:return: those of an algorithm that is set up, at this point of its training"""
    like = next(model.policy.parameters())
    # Filled where they are needed, which on an accelerator nothing waits for
    ent_coef = like.new_full((), model.ent_coef) if model.ent_coef else None
    clip_range = model.clip_range(model._current_progress_remaining)  # type: ignore[operator]
    return Coefficients(clip_range, like.new_full((), model.vf_coef), ent_coef)


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
        self.coefficients: Coefficients = coefficients_of(model)
        # With a scalar critic it may be SB3's configuration, which is SB3's bit for bit
        self._policy_terms = policy_terms if isinstance(self._head, ScalarHead) else policy_terms_by_loops
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
        features = networks.features(minibatch.observations)  # type: ignore[arg-type]  # Dict observations have others
        outputs, actor_inputs = networks.actor.forward(features)
        policy = self._policy_terms(outputs, networks.log_std, minibatch, coefficients, self._normalize_advantage)
        predictions, critic_inputs = networks.critic.forward(features)
        value_loss, of_predictions = self._head.loss_with_gradient(
            predictions, value_targets(minibatch), coefficients.vf_coef
        )
        loss = policy.loss.addcmul(coefficients.vf_coef, value_loss)
        if coefficients.ent_coef is not None:
            loss.addcmul_(coefficients.ent_coef, policy.entropy_loss)

        @th.no_grad()
        def backward(into: Sequence[th.Tensor]) -> None:
            of_outputs, of_log_std = policy.backward()
            networks.actor.backward(of_outputs, actor_inputs, [into[i] for i in self._actor])
            networks.critic.backward(of_predictions, critic_inputs, [into[i] for i in self._critic])
            if self._log_std is not None and of_log_std is not None:
                into[self._log_std].copy_(of_log_std)

        figures = Figures(loss, policy.loss, value_loss, policy.entropy_loss, policy.log_ratio, predictions)
        return figures, backward
