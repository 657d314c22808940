"""What the scaler reports about itself, averaged between two readings."""

from __future__ import annotations

from operator import is_

import torch as th
from stable_baselines3.common.logger import Logger

from sb3_vgs_ppo.scaling.arrays import Array, as_array, as_tensor, count, stack
from sb3_vgs_ppo.scaling.layout import Layout
from sb3_vgs_ppo.scaling.moments import BATCH, Observation, finite_tensors, squared_norm
from sb3_vgs_ppo.scaling.quantiles import observed_quantiles

VARIANCES = ("vgs/normalized_variance", "vgs/variance_p10", "vgs/variance_p50", "vgs/variance_p90")
"""Keys of the reading, which is the last of the :data:`QUANTILES`, and of these themselves."""

QUANTILES = (0.1, 0.5, 0.9)
_AVERAGED = ("vgs/scaling_factor", *VARIANCES, "vgs/grad_norm_raw", "vgs/grad_norm_scaled")


class MetricWindow:
    """Collects tensors per step and reads them on the host once, in :meth:`pop`.

    :param layout: of the parameters
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._q = layout.numel.new_tensor(QUANTILES)
        self._clear()

    def _clear(self) -> None:
        self._sums = self._q.new_zeros(len(_AVERAGED))
        self._n_steps = self._n_warmup = 0
        self._n_gradients = 0
        self._n_finite = self._q.new_zeros(())
        self._steps: list[tuple[Array, Array, Array, Array]] = []
        self._gradients: list[Array] = []

    def add_gradient(self, observation: Observation) -> None:
        """Count non-finite gradients, also of steps that are skipped because of them."""
        if len(self._gradients) == BATCH:
            self._sum_up()
        self._n_gradients += observation.n_gradients
        self._gradients.append(observation.sums)

    def add_step(
        self, observation: Observation, factor: Array, norm_ratio: Array, normalized_variances: Array, warmup: bool
    ) -> None:
        """
        :param factor: by which gradient or update was multiplied, mean over elements, 0-d
        :param norm_ratio: norm of the gradient after scaling over that before it, 0-d
        :param normalized_variances: of each tensor, from which the factor followed, shape (P,) or (1,)
        :param warmup: whether the factor was 1 because too little had been observed
        """
        self._n_warmup += warmup
        self._steps.append((observation.sums, factor, norm_ratio, normalized_variances))

    def _sum_up(self) -> None:
        gradients = None
        if self._gradients:
            gradients = stack(self._gradients)
            self._n_finite += count(finite_tensors(gradients))
        if self._steps:
            sums, *others = map(list, zip(*self._steps, strict=True))
            # Mostly every gradient became a step, and need not be stacked anew
            alike = len(sums) == len(self._gradients) and all(map(is_, sums, self._gradients))
            columns = [gradients if alike else stack(sums), *map(stack, others)]
            if (loops := self._layout.loops) is not None:
                self._sums += th.from_numpy(loops.metric_sums(*columns, as_array(self._q)))
            else:
                self._sums = self._sums + self._figures(*map(as_tensor, columns)).sum(0)
        self._n_steps += len(self._steps)
        self._gradients.clear()
        self._steps.clear()

    def _figures(self, sums: th.Tensor, factors: th.Tensor, norm_ratios: th.Tensor, variances: th.Tensor) -> th.Tensor:
        """:return: figures of :data:`_AVERAGED` of each step, one column each, from those of :meth:`add_step`"""
        norms = squared_norm(sums).sqrt()
        quantiles = observed_quantiles(variances, self._q)
        return th.column_stack((factors, quantiles[:, 2], quantiles, norms, norms * norm_ratios))

    def pop(self) -> dict[str, float]:
        """:return: what :meth:`VarianceGradientScaler.pop_metrics` reports, without the step count"""
        self._sum_up()
        n_finite, *sums = th.cat((self._n_finite[None], self._sums)).tolist()
        metrics = {"vgs/nonfinite": self._n_gradients - n_finite}
        if self._n_steps:
            metrics |= {key: value / self._n_steps for key, value in zip(_AVERAGED, sums, strict=True)}
            metrics["vgs/warmup_active"] = self._n_warmup / self._n_steps
        self._clear()
        return metrics


def record(logger: Logger, metrics: dict[str, float], tag: str = "vgs") -> None:
    """
    Record some steps, so that a dump writes averages, the last step count and the sum of non-finite tensors.

    :param logger: SB3's
    :param metrics: as :meth:`VarianceGradientScaler.pop_metrics` returns them
    :param tag: stands in place of ``vgs``
    """
    for name, value in metrics.items():
        key = f"{tag}/{name.removeprefix('vgs/')}"
        if name == "vgs/step_count":
            logger.record(key, value)
        elif name == "vgs/nonfinite":
            logger.record(key, logger.name_to_value[key] + value)
        else:
            logger.record_mean(key, value)
