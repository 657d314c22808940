"""What the policy contributes to the loss of a minibatch, with its gradient: surrogate objective and entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch as th

from sb3_vgs_ppo._numba import loops
from sb3_vgs_ppo.ppo.likelihood import likelihood_of
from sb3_vgs_ppo.ppo.minibatches import Minibatch
from sb3_vgs_ppo.ppo.surrogate import clipped_surrogate_with_gradient, normalized

FEW_OUTPUTS = 2**12
"""Elements up to which one pass that takes an exponential at a time is ahead of operations that take eight."""


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

    def as_tensors(self) -> Coefficients:
        """:return: the same with a 0-d clip range, which takes part in float32 operations as the number does"""
        return self._replace(clip_range=th.as_tensor(self.clip_range, dtype=th.float64))


class PolicyTerms(NamedTuple):
    """
    :param loss: clipped surrogate objective, negated, 0-d
    :param entropy_loss: mean negative entropy, 0-d
    :param log_ratio: log-probabilities under the current policy less those under the old one, (batch,)
    :param backward: gives the gradients of the loss, entropy included, with respect to the actor's outputs, (batch, k),
        and to the logarithm of the standard deviations, (k,), or None where there are none
    """

    loss: th.Tensor
    entropy_loss: th.Tensor
    log_ratio: th.Tensor
    backward: Callable[[], tuple[th.Tensor, th.Tensor | None]]


def policy_terms(
    outputs: th.Tensor, log_std: th.Tensor | None, minibatch: Minibatch, coefficients: Coefficients, normalize: bool
) -> PolicyTerms:
    """
    Operation by operation, as SB3 and autograd do it, bit for bit.

    :param outputs: of the actor, (batch, k)
    :param log_std: of continuous actions, (k,); None for discrete ones
    :param normalize: the advantages
    """
    likelihood = likelihood_of(outputs, log_std)
    log_ratio = likelihood.log_prob(minibatch.actions) - minibatch.old_log_prob
    advantages = normalized(minibatch.advantages) if normalize else minibatch.advantages
    loss, of_log_prob = clipped_surrogate_with_gradient(log_ratio, advantages, coefficients.clip_range)
    ent_coef = coefficients.ent_coef

    def backward() -> tuple[th.Tensor, th.Tensor | None]:
        of_entropy = None if ent_coef is None else -ent_coef / len(of_log_prob)
        return likelihood.backward(of_log_prob, of_entropy), likelihood.log_std_gradient

    return PolicyTerms(loss, -likelihood.mean_entropy(), log_ratio, backward)


def policy_terms_by_loops(
    outputs: th.Tensor, log_std: th.Tensor | None, minibatch: Minibatch, coefficients: Coefficients, normalize: bool
) -> PolicyTerms:
    """:func:`policy_terms` up to rounding, by compiled loops where there are some for it."""
    kernels = None
    if outputs.is_cpu and outputs.dtype == th.float32 and outputs.numel() <= FEW_OUTPUTS:
        kernels = None if th.compiler.is_compiling() else loops("sb3_vgs_ppo.ppo.loops")
    if kernels is None:
        return policy_terms(outputs, log_std, minibatch, coefficients, normalize)
    log_ratio, of_outputs = th.empty_like(minibatch.old_log_prob), th.empty_like(outputs)
    samples = minibatch.actions.numpy(), minibatch.old_log_prob.numpy(), minibatch.advantages.numpy()
    ent_coef = 0.0 if coefficients.ent_coef is None else float(coefficients.ent_coef)
    numbers = normalize, float(coefficients.clip_range), ent_coef
    of_log_std = None
    if log_std is None:
        actions, *others = samples
        losses = kernels.categorical_terms(
            outputs.numpy(), actions.reshape(-1, 1), *others, *numbers, log_ratio.numpy(), of_outputs.numpy()
        )
    else:
        of_log_std = th.empty_like(log_std)
        written = log_ratio.numpy(), of_outputs.numpy(), of_log_std.numpy()
        losses = kernels.gaussian_terms(outputs.numpy(), log_std.detach().numpy(), *samples, *numbers, *written)
    loss, entropy_loss = th.tensor(losses, dtype=outputs.dtype).unbind()
    return PolicyTerms(loss, entropy_loss, log_ratio, lambda: (of_outputs, of_log_std))
