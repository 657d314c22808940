"""What every measure of gradient noise has in common.

A measure is the part in which the versions of the scaler differ: what it remembers of each gradient, and how it reads
what it remembers as a normalized variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch as th

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.scaling.arrays import Array, as_array, as_tensor, at_least, silent, zero_unless
from sb3_vgs_ppo.scaling.layout import Layout
from sb3_vgs_ppo.scaling.moments import Observation


class Measure(ABC):
    """One version's statistics.

    Callers of :meth:`update` and :meth:`normalized_variance` see to it that NumPy is silent; :meth:`advance` is.

    :param layout: of the parameters
    :param beta: decay of the exponential moving averages (EMA)
    :param eps: added to the squared mean by which a variance is divided
    """

    summary: ClassVar[str]
    """What is measured, in words for messages."""

    over_time: ClassVar[bool]
    """Whether gradients of different times are compared. The versions up to 2.0 compare elements of one gradient."""

    averages: ClassVar[tuple[str, ...]]
    """Keys of the state format under which the two averages are found; none where :data:`GLOBAL_FIGURES` are all."""

    per_element: ClassVar[bool] = False
    """Whether the averages are of elements, which then have to be observed; else of tensors."""

    def __init__(self, layout: Layout, beta: float, eps: float) -> None:
        self.layout = layout
        self.numel: th.Tensor = layout.numel
        self.beta = beta
        self.eps = eps

    @abstractmethod
    def update(self, observation: Observation) -> None:
        """Let one gradient enter the statistics."""

    @abstractmethod
    def normalized_variance(self, step_count: int) -> Array:
        """
        :param step_count: number of gradients that entered
        :return: shape (P,), or (1,) if all tensors are measured together; NaN where nothing was observed so far
        """

    @silent
    def advance(self, observation: Observation, step_count: int) -> Array:
        """
        :meth:`update`, then :meth:`normalized_variance`, in fewer operations where there are some for it.

        :param step_count: number of gradients that have entered then
        :return: as :meth:`normalized_variance`
        """
        self.update(observation)
        return self.normalized_variance(step_count)

    @abstractmethod
    def forget(self, tensors: Sequence[int]) -> None:
        """:param tensors: whose statistics begin anew; figures of all tensors together stay"""

    @abstractmethod
    def statistics(self) -> StateDict:
        """:return: what is remembered, under the keys of the state format; copies"""

    @abstractmethod
    def load_statistics(self, statistics: StateDict) -> None:
        """:param statistics: as :meth:`statistics` returns them, on any device; None where never observed"""

    def denominator(self, squared_mean: Array) -> Array:
        """:return: den(m) = max(m², 1e-12) + ε"""
        return at_least(squared_mean, 1e-12) + self.eps


class TensorMeasure(Measure):
    """Two EMAs of each tensor, and the sum of the weights with which observations entered them.

    That sum is the EMA of the constant 1 and equals 1 − β^n after n observations of a tensor, so dividing by it is the
    bias correction of Adam, for tensors that appear late too.
    """

    averages: ClassVar[tuple[str, ...]] = ("param_grad_mean_ema", "param_grad_sq_ema")

    def __init__(self, layout: Layout, beta: float, eps: float) -> None:
        super().__init__(layout, beta, eps)
        numel = self.numel
        # rows: first EMA, second EMA, sum of weights; and what enters them, whose last row stays 1
        self._averages: Array = as_array(numel.new_zeros(3, len(numel)))
        self._entering: Array = as_array(numel.new_ones(3, len(numel)))

    @abstractmethod
    def values(self, observation: Observation) -> tuple[Array, Array]:
        """:return: what is averaged in the two EMAs, each of shape (P,)"""

    def update(self, observation: Observation) -> None:
        self._entering[0], self._entering[1] = self.values(observation)
        changes = self.step_size() * (self._entering - self._averages)
        self._averages += zero_unless(observation.finite, changes)

    def step_size(self) -> float | Array:
        """:return: weight of a new value; 1 − β lets the EMAs start at 0 (EMA0)"""
        return 1.0 - self.beta

    def forget(self, tensors: Sequence[int]) -> None:
        self._averages[:, tensors] = 0.0

    def statistics(self) -> StateDict:
        first, second, weight = as_tensor(self._averages).clone()
        return {
            "param_grad_mean_ema": first,
            "param_grad_sq_ema": second,
            "param_ema_weight": weight,
            "param_numel": self.numel.long(),
        }

    def load_statistics(self, statistics: StateDict) -> None:
        rows = [statistics[key] for key in (*self.averages, "param_ema_weight")]
        if rows[0] is None:
            self._averages = as_array(self.numel.new_zeros(3, len(self.numel)))
        else:
            self._averages = as_array(th.stack(rows).to(self.numel))
