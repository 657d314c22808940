"""Log-probabilities and entropies of actions with their gradients, without distribution objects.

SB3's distributions wrap torch's, which check their arguments and the actions in every minibatch. Here are the same
operations in the same order, and their gradients as autograd would sum them, so that all of it is equal bit for bit.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch as th

_LOG_SQRT_2PI = math.log(math.sqrt(2 * math.pi))
_GAUSSIAN_ENTROPY = 0.5 + 0.5 * math.log(2 * math.pi)


class Likelihood(Protocol):
    """The action distributions of a batch of states."""

    log_std_gradient: th.Tensor | None
    """Gradient with respect to the logarithm of the standard deviations, from :meth:`backward`, if there are such."""

    def sample(self, deterministic: bool) -> tuple[th.Tensor, th.Tensor]:
        """
        :param deterministic: take the mode instead of drawing
        :return: actions (batch,) or (batch, k) and their log-probabilities (batch,)
        """

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        """
        :param actions: (batch,) or (batch, k); the other methods go on from here
        :return: log-probabilities, (batch,)
        """

    def mean_entropy(self) -> th.Tensor:
        """:return: mean over the batch, 0-d"""

    def backward(self, log_prob_gradient: th.Tensor, entropy_gradient: th.Tensor | None) -> th.Tensor:
        """
        :param log_prob_gradient: of the loss with respect to the log-probabilities, (batch,)
        :param entropy_gradient: of the loss with respect to each entropy, 0-d; None where the loss has no such term
        :return: gradient with respect to the outputs of the action network, (batch, k)
        """


def likelihood_of(outputs: th.Tensor, log_std: th.Tensor | None) -> Likelihood:
    """
    :param outputs: of the actor, (batch, k)
    :param log_std: of continuous actions, (k,); None for discrete ones
    :return: the distributions of actions that they stand for
    """
    return CategoricalLikelihood(outputs) if log_std is None else GaussianLikelihood(outputs, log_std)


class CategoricalLikelihood:
    """
    Discrete actions. A draw takes as many random numbers as SB3's, in the same way.

    :param outputs: unnormalized logits, (batch, k)
    """

    def __init__(self, outputs: th.Tensor) -> None:
        self.log_std_gradient: th.Tensor | None = None
        self._logits = outputs - outputs.logsumexp(dim=-1, keepdim=True)

    def sample(self, deterministic: bool) -> tuple[th.Tensor, th.Tensor]:
        probabilities = self._logits.softmax(dim=-1)
        if deterministic:
            actions = probabilities.argmax(dim=1, keepdim=True)
        else:
            actions = probabilities.multinomial(1, replacement=True)
        return actions.squeeze(-1), self._logits.gather(-1, actions).squeeze(-1)

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        self._actions = actions.long().view(-1, 1)
        return self._logits.gather(-1, self._actions).squeeze(-1)

    def mean_entropy(self) -> th.Tensor:
        self._clamped = self._logits.clamp(min=th.finfo(self._logits.dtype).min)
        self._probabilities = self._logits.softmax(dim=-1)
        return -(self._clamped * self._probabilities).sum() / len(self._logits)

    def backward(self, log_prob_gradient: th.Tensor, entropy_gradient: th.Tensor | None) -> th.Tensor:
        column = log_prob_gradient.unsqueeze(-1)
        if entropy_gradient is None:
            # Only the chosen logits have a gradient, so their sum, which logsumexp passes on to all, is that gradient.
            return self._logits.exp().mul_(-column).scatter_add_(-1, self._actions, column)
        of_probabilities = self._clamped * -entropy_gradient
        gradient: th.Tensor = th.ops.aten._softmax_backward_data.default(
            of_probabilities, self._probabilities, -1, of_probabilities.dtype
        )
        gradient.add_((self._probabilities * -entropy_gradient).mul_(self._clamped == self._logits))
        gradient.scatter_add_(-1, self._actions, column)
        return gradient + (-gradient).sum(-1, keepdim=True) * self._logits.exp()


class GaussianLikelihood:
    """
    Continuous actions with independent Gaussian noise.

    :param outputs: means, (batch, k)
    :param log_std: logarithm of the standard deviations, the same in every state, shape (k,)
    """

    def __init__(self, outputs: th.Tensor, log_std: th.Tensor) -> None:
        self._means = outputs
        self._std = log_std.exp()
        self.log_std_gradient: th.Tensor | None = None

    def sample(self, deterministic: bool) -> tuple[th.Tensor, th.Tensor]:
        actions = self._means
        if not deterministic:
            actions = actions + th.randn_like(actions) * self._std
        return actions, self.log_prob(actions)

    def log_prob(self, actions: th.Tensor) -> th.Tensor:
        self._twice_variance = 2 * self._std**2
        self._deviations = actions - self._means
        self._exponents = self._deviations.square().neg_().div_(self._twice_variance)
        self._log_std = self._std.log()  # rounded otherwise than ``log_std``
        return (self._exponents - self._log_std).sub_(_LOG_SQRT_2PI).sum(dim=1)

    def mean_entropy(self) -> th.Tensor:
        return self._log_std.sum() + len(self._std) * _GAUSSIAN_ENTROPY  # the same in every state

    def backward(self, log_prob_gradient: th.Tensor, entropy_gradient: th.Tensor | None) -> th.Tensor:
        column = log_prob_gradient.unsqueeze(-1)
        of_variance = (self._exponents / self._twice_variance).mul_(-column).mul_(2)
        of_std = -column / self._std
        if entropy_gradient is not None:
            of_std = entropy_gradient / self._std + of_std
        of_std = of_std + of_variance.mul_(2 * self._std)
        self.log_std_gradient = of_std.sum(0) * self._std
        return (column / self._twice_variance).mul_(2 * self._deviations)
