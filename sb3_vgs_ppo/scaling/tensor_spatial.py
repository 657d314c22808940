"""Version 2.0 (legacy): the spread inside each tensor at one time.

It claimed to measure stochastic variance, the spread over time, and did not: a gradient whose elements all equal the
same noise reads 0, and a constant gradient whose elements differ reads high (the second seed report's test cases 2, 3).
"""

from __future__ import annotations

from sb3_vgs_ppo.scaling.arrays import Array, at_least
from sb3_vgs_ppo.scaling.measure import TensorMeasure
from sb3_vgs_ppo.scaling.moments import Observation


class TensorSpatial(TensorMeasure):
    """nv_i = EMA1(var(g_i)) / den(EMA1(mean|g_i|)), var biased."""

    summary = "the spread inside each tensor of one gradient (SPATIAL variance)"
    over_time = False

    def values(self, observation: Observation) -> tuple[Array, Array]:
        mean = observation.mean()
        return observation.mean_magnitude(), at_least(observation.mean_square() - mean * mean, 0.0)

    def step_size(self) -> Array:
        # EMA1 starts at a tensor's first value. So its sum of weights is 0 before and 1 for ever after.
        return 1.0 - self.beta * self._averages[2]

    def normalized_variance(self, step_count: int) -> Array:
        # Divided by 1 − β^t although it does not start at 0: this inflates early moments, as that version did.
        divisor = self._averages[2] * (1.0 - self.beta**step_count)  # 0 / 0 = NaN where nothing was observed
        mean, variance = self._averages[0] / divisor, self._averages[1] / divisor
        return variance / self.denominator(mean * mean)

    def advance(self, observation: Observation, step_count: int) -> Array:
        if (loops := self.layout.loops) is None:
            return super().advance(observation, step_count)
        correction = 1.0 - self.beta**step_count
        return loops.advance_spatial(
            observation.sums, observation.numel, self._averages, self.beta, self.eps, correction
        )
