"""Version 4.0: the change of each element's gradient over time.

Every element has a mean m and a variance v over time, exponentially weighted and updated incrementally (West 1979), so
that nothing cancels. The mean of a noisy gradient is noisy too, E[m²] = μ² + ρ·σ², and what is known of that is taken
off (Balles & Hennig 2018, "Dissecting Adam", section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch as th

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.scaling.arrays import Array, as_array, as_tensor, at_least, silent, where
from sb3_vgs_ppo.scaling.layout import Layout
from sb3_vgs_ppo.scaling.measure import Measure
from sb3_vgs_ppo.scaling.moments import Observation


class ElementsTemporal(Measure):
    """nv_i = Σσ² / (Σμ² + ε·Σσ²) over the elements of tensor i, or the same of each element alone.

    With n observations of a tensor, the weights β^(n − t) sum up to w / (1 − β), w = 1 − β^n, and the squares of the
    normalized ones to ρ = (1 − β)(2 − w) / ((1 + β) w), which falls to (1 − β) / (1 + β). Then σ² = v / (1 − ρ) and
    μ² = m² − ρ·σ² have no bias; Σμ² counts as 0 where it comes out below. The sums over a tensor are the "simple noise
    scale" of McCandlish et al. (2018, arXiv:1812.06162, equation 2.9). Here ε is relative to the noise, so the reading
    does not depend on the gradient's scale. One observation has no variance and counts as none.

    Two numbers are kept per element, in float32 (float64 for parameters of that precision).
    """

    summary = "the change of each element of the gradient (STOCHASTIC variance, over time)"
    over_time = True
    averages: ClassVar[tuple[str, ...]] = ("element_grad_mean_ema", "element_grad_var_ema")
    per_element = True

    def __init__(self, layout: Layout, beta: float, eps: float) -> None:
        super().__init__(layout, beta, eps)
        self._mean: Array = as_array(layout.zeros())
        self._variance: Array = as_array(layout.zeros())
        self._weight: Array = as_array(self.numel.new_zeros(len(layout.sizes)))
        # A gradient whose square would overflow is not observed: it would stay in the variance for ever
        self._limit = th.finfo(layout.dtype).max ** 0.5 / 4

    def update(self, observation: Observation) -> None:
        assert observation.elements is not None  # the reader was told to observe elements
        gradient = as_tensor(observation.elements)
        mean, variance = as_tensor(self._mean), as_tensor(self._variance)  # the same memory
        seen = self._is_seen(observation)
        self._weight = where(seen, self._weight + (1.0 - self.beta) * (1.0 - self._weight), self._weight)
        # The newest one of the normalized weights: 1 at first, so that the mean starts at a value and the variance at 0
        step_size = self.layout.spread(where(seen, (1.0 - self.beta) / self._weight, 0.0))
        if isinstance(seen, th.Tensor) or not seen.all():
            kept = th.as_tensor(self.layout.spread(seen), device=mean.device) == 0.0
            gradient = th.where(kept, mean, gradient)
        change = gradient - mean
        moved = step_size * change
        mean += moved
        variance += moved.mul_(change)
        variance *= 1.0 - step_size

    def _is_seen(self, observation: Observation) -> Array:
        """:return: tensors whose elements enter the statistics, shape (P,), bool"""
        return observation.finite & (observation.largest() < self._limit)

    def normalized_variance(self, step_count: int) -> Array:
        if (loops := self.layout.element_loops) is not None:
            return loops.read_elements(
                self.layout.bounds, self._weight, self._mean, self._variance, self.beta, self.eps
            )
        inflation, bias = self._corrections()
        variance = self.layout.sum_powers(as_tensor(self._variance), 1)
        squared_mean = self.layout.sum_powers(as_tensor(self._mean), 2)
        return self._ratio(variance * inflation, squared_mean, bias)

    def advance(self, observation: Observation, step_count: int) -> Array:
        if (loops := self.layout.element_loops) is None:
            return super().advance(observation, step_count)
        # Loops warn of nothing: `silent` around them would take a tenth of what all of VGS does
        loops.advance_elements(
            observation.elements,
            self.layout.bounds,
            observation.sums,
            self._limit,
            self._weight,
            self._mean,
            self._variance,
            self.beta,
        )
        return self.normalized_variance(step_count)

    @silent
    def element_variances(self) -> th.Tensor:
        """:return: nv of each element, shape (N,); NaN where fewer than two gradients were observed"""
        inflation, bias = map(self.layout.spread, self._corrections())
        ratio: th.Tensor = self._ratio(as_tensor(self._variance) * inflation, as_tensor(self._mean).square(), bias)
        return ratio

    def _corrections(self) -> tuple[Array, Array]:
        """:return: 1 / (1 − ρ), NaN where fewer than two gradients were observed, and ρ, of each tensor"""
        weight, first = self._weight, 1.0 - self.beta
        bias = first * (2.0 - weight) / ((1.0 + self.beta) * weight)
        inflation = (1.0 + self.beta) * weight / (2.0 * (weight - first))
        return where(weight > first, inflation, math.nan), bias

    def _ratio(self, variance: Array, squared_mean: Array, bias: Array) -> Array:
        mean_without_bias = at_least(squared_mean - bias * variance, 0.0)
        # 0 where neither noise nor gradient was ever seen, which is no reading of infinity
        return where(variance == 0.0, 0.0, variance / (mean_without_bias + self.eps * variance))

    def forget(self, tensors: Sequence[int]) -> None:
        for tensor in tensors:
            elements = slice(*self.layout.bounds[tensor : tensor + 2])
            self._mean[elements] = self._variance[elements] = self._weight[tensor] = 0.0

    def statistics(self) -> StateDict:
        averages = {
            key: as_tensor(average).clone()
            for key, average in zip(self.averages, (self._mean, self._variance), strict=True)
        }
        return {**averages, "param_ema_weight": as_tensor(self._weight).clone(), "param_numel": self.numel.long()}

    def load_statistics(self, statistics: StateDict) -> None:
        mean, variance = (statistics[key] for key in self.averages)
        if mean is None:
            self._mean, self._variance = as_array(self.layout.zeros()), as_array(self.layout.zeros())
            self._weight = as_array(th.zeros_like(self.numel))
            return
        self._mean, self._variance = (
            as_array(average.to(self.layout.device, self.layout.dtype, copy=True)) for average in (mean, variance)
        )
        self._weight = as_array(statistics["param_ema_weight"].to(self.numel, copy=True))
