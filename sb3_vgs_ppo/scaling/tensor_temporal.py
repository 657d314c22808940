"""Versions 3.0 and 3.1: the change of each tensor's gradient over time.

The stochastic variance of Faghri & Duvenaud (2020, arXiv:2007.04532), per tensor instead of per element.
"""

from __future__ import annotations

from typing import ClassVar

from sb3_vgs_ppo.scaling.arrays import Array, at_least
from sb3_vgs_ppo.scaling.measure import TensorMeasure
from sb3_vgs_ppo.scaling.moments import Observation


class TensorTemporal(TensorMeasure):
    """nv_i = max(EMA0(μ_i²) − EMA0(μ_i)², 0) / den(EMA0(μ_i)), μ_i = mean(g_i).

    Blind to noise that is independent per element: the mean over N elements shrinks its variance N-fold.
    """

    summary = "the change of each tensor's mean gradient (STOCHASTIC variance, over time)"
    over_time = True
    _mixed: ClassVar[bool] = False

    def values(self, observation: Observation) -> tuple[Array, Array]:
        mean = observation.mean()
        return mean, mean * mean

    def normalized_variance(self, step_count: int) -> Array:
        averages = self._averages[:2] / self._averages[2]  # 0 / 0 = NaN where nothing was observed
        squared_mean = averages[0] * averages[0]
        return at_least(averages[1] - squared_mean, 0.0) / self.denominator(squared_mean)

    def advance(self, observation: Observation, step_count: int) -> Array:
        if (loops := self.layout.loops) is None:
            return super().advance(observation, step_count)
        return loops.advance_temporal(
            observation.sums, observation.numel, self._averages, self.beta, self.eps, self._mixed
        )


class TensorMixed(TensorTemporal):
    """nv_i = max(EMA0(s_i) − EMA0(μ_i)², 0) / den(EMA0(μ_i)), s_i = mean(g_i²).

    "Option 1" of the second seed report. It adds the spread inside the tensor to the change over time, so a constant
    linspace(−1, 1), which the report itself wants to read 0, reads millions.
    """

    summary = "change over time and spread inside each tensor, mixed"
    _mixed = True

    def values(self, observation: Observation) -> tuple[Array, Array]:
        return observation.mean(), observation.mean_square()
