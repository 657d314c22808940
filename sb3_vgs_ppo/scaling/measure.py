"""What every measure of gradient noise has in common.

A measure is the part in which the versions of the scaler differ: what it remembers of each gradient, and how it reads
what it remembers as a normalized variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch as th

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.scaling.moments import Observation


class Measure(ABC):
    """One version's statistics.

    :param numel: number of elements of each tensor, shape (P,), float64, on the parameters' device
    :param beta: decay of the exponential moving averages (EMA)
    :param eps: added to the squared mean by which a variance is divided
    """

    summary: ClassVar[str]
    """What is measured, in words for messages."""

    over_time: ClassVar[bool]
    """Whether gradients of different times are compared. The versions up to 2.0 compare elements of one gradient."""

    def __init__(self, numel: th.Tensor, beta: float, eps: float) -> None:
        self.numel = numel
        self.beta = beta
        self.eps = eps

    @abstractmethod
    def update(self, observation: Observation) -> None:
        """Let one gradient enter the statistics."""

    @abstractmethod
    def normalized_variance(self, step_count: int) -> th.Tensor:
        """
        :param step_count: number of gradients that entered
        :return: shape (P,), or (1,) if all tensors are measured together; NaN where nothing was observed so far
        """

    @abstractmethod
    def statistics(self) -> StateDict:
        """:return: what is remembered, under the keys of the state format; copies"""

    @abstractmethod
    def load_statistics(self, statistics: StateDict) -> None:
        """:param statistics: as :meth:`statistics` returns them, on any device; None where never observed"""

    def denominator(self, squared_mean: th.Tensor) -> th.Tensor:
        """:return: den(m) = max(m², 1e-12) + ε"""
        return squared_mean.clamp_min(1e-12).add_(self.eps)


class TensorMeasure(Measure):
    """Two EMAs of each tensor, and the sum of the weights with which observations entered them.

    That sum is the EMA of the constant 1 and equals 1 − β^n after n observations of a tensor, so dividing by it is the
    bias correction of Adam, for tensors that appear late too.
    """

    def __init__(self, numel: th.Tensor, beta: float, eps: float) -> None:
        super().__init__(numel, beta, eps)
        self._ones = th.ones_like(numel)
        self._averages = numel.new_zeros(3, len(numel))  # rows: first EMA, second EMA, sum of weights

    @abstractmethod
    def values(self, observation: Observation) -> tuple[th.Tensor, th.Tensor]:
        """:return: what is averaged in the two EMAs, each of shape (P,)"""

    def update(self, observation: Observation) -> None:
        values = th.stack((*self.values(observation), self._ones))
        self._averages = th.where(observation.finite, self._averages.lerp(values, self.step_size()), self._averages)

    def step_size(self) -> float | th.Tensor:
        """:return: weight of a new value; 1 − β lets the EMAs start at 0 (EMA0)"""
        return 1.0 - self.beta

    def statistics(self) -> StateDict:
        first, second, weight = self._averages.clone()
        return {
            "param_grad_mean_ema": first,
            "param_grad_sq_ema": second,
            "param_ema_weight": weight,
            "param_numel": self.numel.long(),
        }

    def load_statistics(self, statistics: StateDict) -> None:
        rows = [statistics[key] for key in ("param_grad_mean_ema", "param_grad_sq_ema", "param_ema_weight")]
        if rows[0] is None:
            self._averages = th.zeros_like(self._averages)
        else:
            self._averages = th.stack(rows).to(self._averages)
