"""Version 1.0 (legacy): the spread over all elements of all tensors at one time.

The same four figures are kept by every later version, for logging only. So they are computed in batches, except where
version 1.0 reads them at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch as th

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.scaling.arrays import Array, as_array, at_least, silent, stack
from sb3_vgs_ppo.scaling.layout import Layout
from sb3_vgs_ppo.scaling.measure import Measure
from sb3_vgs_ppo.scaling.moments import BATCH, Observation, global_figures

GLOBAL_FIGURES = ("grad_mean_ema", "grad_var_ema", "grad_norm_ema", "grad_max_ema")
"""State keys: EMA1 of mean|g|, unbiased var|g|, ‖g‖ and max|g| over all elements."""


class ElementsSpatial(Measure):
    """nv = EMA1(var(a)) / den(EMA1(mean(a))), a = all |g| concatenated.

    EMA1 starts at the first observed value and is nevertheless divided by 1 − β^t when read, which inflates early
    moments; that is what this version did.
    """

    summary = "the spread over all elements of one gradient (SPATIAL variance)"
    over_time = False
    averages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, layout: Layout, beta: float, eps: float) -> None:
        super().__init__(layout, beta, eps)
        self._averages: Array = as_array(self.numel.new_zeros(len(GLOBAL_FIGURES)))
        self._started: Array = as_array(self.numel.new_zeros(len(GLOBAL_FIGURES)))  # 1 from a figure's first value on
        self._waiting: list[Array] = []

    def update(self, observation: Observation) -> None:
        self._waiting.append(observation.sums)
        if len(self._waiting) == BATCH:
            self._enter()

    @silent
    def _enter(self) -> None:
        """Let the waiting observations enter the EMAs, in their order."""
        if not self._waiting:
            return
        sums, numel = stack(self._waiting), self.layout.counts
        self._waiting.clear()
        if (loops := self.layout.loops) is not None:
            loops.enter_all_global_figures(sums, numel, self._averages, self._started, self.beta)
            return
        figures, observed = global_figures(sums, numel)
        seen = observed[:, None]
        # before each of them: 1 if there was an observation before
        started = at_least(self._started, ((seen.cumsum(0) - seen) > 0) * 1.0)
        # 1 − β; but 1 for the first value ever, at which EMA1 starts; and 0 where no tensor was finite
        step_sizes = seen * (1.0 - self.beta * started)
        for figure, step_size in zip(figures, step_sizes, strict=True):
            self._averages = self._averages + step_size * (figure - self._averages)
        self._started = at_least(started[-1], observed[-1])

    def advance(self, observation: Observation, step_count: int) -> Array:
        if (loops := self.layout.loops) is None:
            return super().advance(observation, step_count)
        self._enter()
        correction = 1.0 - self.beta**step_count
        return loops.advance_global_figures(
            observation.sums, observation.numel, self._averages, self._started, self.beta, self.eps, correction
        )

    def normalized_variance(self, step_count: int) -> Array:
        self._enter()
        divisor = self._started * (1.0 - self.beta**step_count)  # 0 / 0 = NaN where nothing was observed
        inflated = self._averages / divisor
        mean, variance = inflated[0:1], inflated[1:2]
        return variance / self.denominator(mean * mean)

    def forget(self, tensors: Sequence[int]) -> None:
        """All figures are of all tensors together."""

    def statistics(self) -> StateDict:
        self._enter()
        averages, started = stack((self._averages, self._started)).tolist()
        return {key: a if s else None for key, a, s in zip(GLOBAL_FIGURES, averages, started, strict=True)}

    def load_statistics(self, statistics: StateDict) -> None:
        values = [statistics[key] for key in GLOBAL_FIGURES]
        rows = [[0.0 if v is None else v for v in values], [float(v is not None) for v in values]]
        self._averages, self._started = as_array(th.tensor(rows, dtype=th.float64).to(self.numel.device))
