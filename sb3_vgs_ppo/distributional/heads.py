"""Value heads: the last layer of a critic, the distribution of returns it stands for, and its loss.

A head called like SB3's ``value_net`` answers with the mean value, so that it can take its place in an
``ActorCriticPolicy``; training uses its raw predictions. In the ``state_dict`` every head has the keys of
``nn.Linear`` and no other: ``weight`` (out_features, latent_dim) and ``bias`` (out_features,).
"""

from __future__ import annotations

import inspect
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_vgs_ppo._numba import loops
from sb3_vgs_ppo.distributional.lambda_mixture import slice_means
from sb3_vgs_ppo.distributional.quantile import (
    quantile_crossing,
    quantile_huber_loss,
    quantile_huber_loss_with_gradient,
    quantile_midpoints,
)
from sb3_vgs_ppo.distributional.support import make_support
from sb3_vgs_ppo.errors import UserInputError

_MEAN = 1  # ATen's number for reduction="mean"


class ValueHead(nn.Module, ABC):
    """
    Linear layer whose outputs, the predictions, parametrise a distribution of returns.

    :param linear: layer whose parameters the head takes over (the same objects, not copies)
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight: th.Tensor = linear.weight
        self.bias: th.Tensor = linear.bias

    def init_weights(self, ortho: bool) -> None:
        """
        Initialise as SB3 does with its ``value_net``.

        :param ortho: orthogonal weights with gain 1 and zero bias; otherwise torch's default, as constructed, is kept
        """
        if ortho:
            nn.init.orthogonal_(self.weight, gain=1.0)
            nn.init.zeros_(self.bias)

    def forward(self, latent: th.Tensor) -> th.Tensor:
        """
        Mean value, as SB3 expects it of ``value_net``.

        :param latent: output of the critic's last hidden layer, shape (batch, latent_dim)
        :return: mean of the predicted distribution, shape (batch, 1)
        """
        return self.mean(self.predict(latent))

    def predict(self, latent: th.Tensor) -> th.Tensor:
        """
        Raw predictions, which all other methods take.

        :param latent: output of the critic's last hidden layer, shape (batch, latent_dim)
        :return: shape (batch, out_features)
        """
        return F.linear(latent, self.weight, self.bias)

    @abstractmethod
    def mean(self, predictions: th.Tensor) -> th.Tensor:
        """
        :param predictions: shape (batch, out_features)
        :return: mean of the predicted distribution, shape (batch, 1), in units of the return
        """

    @abstractmethod
    def std(self, predictions: th.Tensor) -> th.Tensor:
        """
        :param predictions: shape (batch, out_features)
        :return: spread of the predicted distribution, shape (batch,), in units of the return
        """

    @abstractmethod
    def loss(self, predictions: th.Tensor, targets: th.Tensor) -> th.Tensor:
        """
        :param predictions: shape (batch, out_features)
        :param targets: λ-returns, shape (batch,), or distributions as :meth:`encode` gives them
        :return: mean loss, shape (); not finite if a target is not
        """

    @abstractmethod
    def loss_with_gradient(
        self, predictions: th.Tensor, targets: th.Tensor, coefficient: float | th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        """
        :meth:`loss` and its gradient, derived by hand.

        :param predictions: shape (batch, out_features), without a graph
        :param targets: as for :meth:`loss`
        :param coefficient: by which the gradient is multiplied; a number, or 0-d
        :return: loss, shape (), and the gradient with respect to ``predictions``, shape (batch, out_features)
        """

    @abstractmethod
    def encode(self, atoms: th.Tensor) -> th.Tensor:
        """
        Distributions of the return as targets of :meth:`loss`. Their mean is kept, but for what a support clamps.

        :param atoms: of equal probability, shape (batch, m), in units of the return
        :return: what a right critic predicts: m atoms → out_features quantiles, probabilities, or the mean
        """

    @abstractmethod
    def distribution(self, predictions: th.Tensor) -> th.Tensor | tuple[th.Tensor, th.Tensor]:
        """
        :param predictions: shape (batch, out_features)
        :return: the predicted distribution, in the form that the head's class states
        """

    @th.no_grad()
    def metrics(self, predictions: th.Tensor, targets: th.Tensor) -> dict[str, th.Tensor]:
        """
        What training logs about the critic, as tensors so that nothing waits for the device.

        :param predictions: shape (batch, out_features)
        :param targets: λ-returns, shape (batch,)
        :return: ``value_std``, mean spread of the predicted distributions, and what the head adds; shapes ()
        """
        return {"value_std": self.std(predictions).mean()}


class ScalarHead(ValueHead):
    """SB3's critic: one output, the value itself, and mean squared error. Distribution: the value, shape (batch, 1)."""

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> ScalarHead:
        """
        Take over SB3's ``value_net``, with parameters (the same objects), values and ``state_dict`` keys.

        :param linear: layer with one output and a bias
        :return: the head
        :raises ValueError: more than one output
        """
        if linear.out_features != 1:
            raise ValueError(f"a scalar head has one output, the layer has out_features={linear.out_features}")
        return cls(linear)

    def mean(self, predictions: th.Tensor) -> th.Tensor:
        return predictions

    def std(self, predictions: th.Tensor) -> th.Tensor:
        return th.zeros_like(predictions).flatten()

    def loss(self, predictions: th.Tensor, targets: th.Tensor) -> th.Tensor:
        # SB3's order of arguments: parity with its PPO is bit for bit.
        return F.mse_loss(targets, predictions.flatten())

    def loss_with_gradient(
        self, predictions: th.Tensor, targets: th.Tensor, coefficient: float | th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        # The kernel that autograd calls, for the same bits
        values = predictions.flatten()
        outer = th.as_tensor(coefficient, dtype=values.dtype, device=values.device)
        gradient = th.ops.aten.mse_loss_backward.default(outer, values, targets, _MEAN)
        return F.mse_loss(targets, values), gradient.unsqueeze(1)

    def encode(self, atoms: th.Tensor) -> th.Tensor:
        return atoms.mean(dim=1)

    def distribution(self, predictions: th.Tensor) -> th.Tensor:
        return predictions


class QuantileHead(ValueHead):
    """
    Quantiles at the midpoints (k + ½) / n, learned with the quantile Huber loss (Dabney et al. 2018).
    Distribution: quantiles, shape (batch, n_quantiles), not sorted.

    Their mean leaves out what lies beyond the outermost midpoints: 1.1 % of the mean of an exponential distribution
    with 32 quantiles.

    :param latent_dim: number of input features
    :param n_quantiles: number of quantiles, at least 1; one is a scalar critic with half the Huber loss
    :param huber_kappa: error at which the loss turns from quadratic to linear, in units of the return, finite and ≥ 0;
        0 is quantile regression without smoothing
    :raises UserInputError: ``n_quantiles`` or ``huber_kappa`` is not as stated
    """

    taus: th.Tensor
    huber_kappa: float

    def __init__(self, latent_dim: int, n_quantiles: int = 32, huber_kappa: float = 1.0) -> None:
        if not isinstance(n_quantiles, numbers.Integral) or n_quantiles < 1:
            raise UserInputError(f"n_quantiles={n_quantiles!r} is not an integer of at least 1")
        if not (math.isfinite(huber_kappa) and huber_kappa >= 0):
            raise UserInputError(
                f"huber_kappa={huber_kappa!r} is not a finite number ≥ 0; remedy: 1.0 is usual, "
                "0 is quantile regression without smoothing"
            )
        super().__init__(nn.Linear(latent_dim, n_quantiles))
        self.huber_kappa = huber_kappa
        self.register_buffer("taus", quantile_midpoints(n_quantiles), persistent=False)

    def mean(self, predictions: th.Tensor) -> th.Tensor:
        return predictions.mean(dim=1, keepdim=True)

    def std(self, predictions: th.Tensor) -> th.Tensor:
        # The quantiles are the whole distribution, not a sample of it: no Bessel correction.
        return predictions.std(dim=1, correction=0)

    def loss(self, predictions: th.Tensor, targets: th.Tensor) -> th.Tensor:
        return quantile_huber_loss(predictions, targets, self.taus, self.huber_kappa)

    def loss_with_gradient(
        self, predictions: th.Tensor, targets: th.Tensor, coefficient: float | th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        if (kernels := self._loops_for(predictions, targets)) is not None:
            gradient = th.empty_like(predictions)
            arrays = predictions.numpy(), targets.numpy(), self.taus.numpy()
            number = kernels.quantile_huber(*arrays, self.huber_kappa, float(coefficient), gradient.numpy())
            return predictions.new_tensor(number), gradient
        loss, gradient = quantile_huber_loss_with_gradient(predictions, targets, self.taus, self.huber_kappa)
        return loss, gradient.mul_(coefficient)

    @staticmethod
    def _loops_for(predictions: th.Tensor, targets: th.Tensor) -> ModuleType | None:
        """:return: :mod:`sb3_vgs_ppo.distributional.loops` if they can compute this loss, else None"""
        suits = predictions.is_cpu and predictions.dtype == targets.dtype == th.float32
        if th.compiler.is_compiling() or not suits or targets.ndim != 1:
            return None
        return loops("sb3_vgs_ppo.distributional.loops")

    def encode(self, atoms: th.Tensor) -> th.Tensor:
        """:return: means of slices of equal probability, (batch, n_quantiles)"""
        return slice_means(atoms, th.full_like(atoms, 1 / atoms.shape[1]), len(self.taus))

    def distribution(self, predictions: th.Tensor) -> th.Tensor:
        return predictions

    @th.no_grad()
    def metrics(self, predictions: th.Tensor, targets: th.Tensor) -> dict[str, th.Tensor]:
        """Adds ``quantile_crossing``, the fraction of neighbouring quantiles in the wrong order."""
        return {**super().metrics(predictions, targets), "quantile_crossing": quantile_crossing(predictions)}


class CategoricalHead(ValueHead):
    """
    Logits over fixed atoms, learned with the cross-entropy to encoded returns.
    Distribution: atoms, shape (n_atoms,), and probabilities, shape (batch, n_atoms).

    :param latent_dim: number of input features
    :param n_atoms: number of atoms, at least 2 with ``"symlog"`` and 8 with ``"none"``
    :param value_transform: ``"symlog"`` for symexp-spaced atoms and two-hot targets, which need no range
        (:class:`~sb3_vgs_ppo.distributional.support.SymexpSupport`); ``"none"`` for evenly spaced atoms and HL-Gauss
        targets (:class:`~sb3_vgs_ppo.distributional.support.LinearSupport`)
    :param v_min: smallest return that is represented; required with ``"none"``, refused with ``"symlog"``
    :param v_max: largest return that is represented; likewise
    :raises UserInputError: an unknown ``value_transform``, or arguments that it lacks, does not use or cannot take
    """

    def __init__(
        self,
        latent_dim: int,
        n_atoms: int = 101,
        value_transform: str = "symlog",
        v_min: float | None = None,
        v_max: float | None = None,
    ) -> None:
        support = make_support(value_transform, n_atoms, v_min, v_max)
        super().__init__(nn.Linear(latent_dim, n_atoms))
        self.support = support
        self.init_weights(ortho=False)

    def init_weights(self, ortho: bool) -> None:
        """
        Zero weights and bias, so that the first prediction is the support's prior in every state (as DreamerV3).

        :param ortho: no influence: random logits would be multiplied by the outermost atoms
        """
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def predict(self, latent: th.Tensor) -> th.Tensor:
        return F.linear(latent, self.weight, self.bias + self.support.prior_logits)

    def mean(self, predictions: th.Tensor) -> th.Tensor:
        return self.support.mean(predictions.softmax(dim=1))

    def std(self, predictions: th.Tensor) -> th.Tensor:
        return self.support.std(predictions.softmax(dim=1))

    def loss(self, predictions: th.Tensor, targets: th.Tensor) -> th.Tensor:
        return F.cross_entropy(predictions, self._probabilities(targets))

    def loss_with_gradient(
        self, predictions: th.Tensor, targets: th.Tensor, coefficient: float | th.Tensor
    ) -> tuple[th.Tensor, th.Tensor]:
        log_probabilities = predictions.log_softmax(dim=1)
        encoded = self._probabilities(targets)
        loss = -th.dot(log_probabilities.flatten(), encoded.flatten()) / len(targets)
        return loss, log_probabilities.exp_().sub_(encoded).mul_(coefficient / len(targets))

    def encode(self, atoms: th.Tensor) -> th.Tensor:
        """:return: probabilities of the support's atoms, (batch, n_atoms)"""
        return self.support.project(atoms)

    def _probabilities(self, targets: th.Tensor) -> th.Tensor:
        return self.support.encode(targets) if targets.ndim == 1 else targets

    def distribution(self, predictions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.support.atoms, predictions.softmax(dim=1)

    @th.no_grad()
    def metrics(self, predictions: th.Tensor, targets: th.Tensor) -> dict[str, th.Tensor]:
        """Adds ``value_target_clipped``, the fraction of targets outside the support."""
        clipped = self.support.clipped(targets).float().mean()
        return {**super().metrics(predictions, targets), "value_target_clipped": clipped}


_HEADS: dict[str, Callable[..., ValueHead]] = {
    "scalar": ScalarHead.from_linear,
    "quantile": QuantileHead,
    "categorical": CategoricalHead,
}


def make_value_head(name: str, linear_or_latent_dim: nn.Linear | int, **kwargs: Any) -> ValueHead:
    """
    Build a value head by name.

    :param name: ``"scalar"``, ``"quantile"`` or ``"categorical"``
    :param linear_or_latent_dim: SB3's ``value_net``, whose parameters a scalar head takes over and whose number of
        inputs the others take; or that number
    :param kwargs: arguments of the head's class
    :return: the head
    :raises UserInputError: an unknown name, or arguments that this head does not use or cannot take
    """
    if name not in _HEADS:
        raise UserInputError(f"unknown value_head={name!r}; remedy: choose one of {', '.join(map(repr, _HEADS))}")
    build = _HEADS[name]
    used = list(inspect.signature(build).parameters)[1:]
    unused = [f"{key}={value!r}" for key, value in kwargs.items() if key not in used]
    if unused:
        raise UserInputError(
            f"value_head={name!r} does not use {', '.join(unused)}; "
            f"remedy: leave it out (this head takes {', '.join(used) or 'no arguments'}), or choose another head"
        )
    source = linear_or_latent_dim
    latent_dim = source.in_features if isinstance(source, nn.Linear) else source
    if name == "scalar":
        return build(source if isinstance(source, nn.Linear) else nn.Linear(latent_dim, 1))
    return build(latent_dim, **kwargs)
