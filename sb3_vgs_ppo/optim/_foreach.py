"""The fast implementation of a step: few large kernels instead of many small ones.

It must agree with ``single_tensor.py``, which is the one to read first. Every use of torch's private ``_foreach_*``
functions is in this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch as th
from torch import Tensor

from sb3_vgs_ppo.optim.options import UtilityNormalization
from sb3_vgs_ppo.optim.tensor_batch import TensorBatch, global_range, split_like


def unsupported_type(params: Iterable[Tensor]) -> type | None:
    """Find a tensor subclass, whose own operators the ``_foreach_*`` functions would bypass.

    :return: the first such type, or None
    """
    return next((type(param) for param in params if type(param) not in (Tensor, th.nn.Parameter)), None)


def multi_tensor_step(
    batches: Sequence[TensorBatch],
    *,
    adaptive: bool,
    utility_normalization: UtilityNormalization,
    generator: th.Generator | None,
) -> None:
    """Do what ``single_tensor_step`` does, with the same parameters and the same draws of noise."""
    utilities, ranges = [], []
    for batch in batches:
        utility, utility_range = _update_utilities(batch, corrected_range=utility_normalization != "official")
        utilities.append(utility)
        ranges.append(utility_range)

    low, high = global_range(ranges)

    for batch, utility in zip(batches, utilities, strict=True):
        plasticity = split_like(_plasticity(utility, low, high, utility_normalization), batch.weights)
        updates = _adam_directions(batch) if adaptive else batch.grads
        noise = batch.draw_noise(generator)
        if noise is not None:
            if batch.options["noise"] == "relative":
                th._foreach_mul_(noise, _root_mean_squares(updates))
            th._foreach_add_(noise, updates)
            updates = noise
        lr = batch.options["lr"]
        th._foreach_mul_(batch.weights, 1.0 - lr * batch.options["weight_decay"])
        th._foreach_addcmul_(batch.weights, updates, plasticity, value=-2.0 * lr)
        batch.write_back()


def _update_utilities(batch: TensorBatch, *, corrected_range: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Advance the utilities.

    :return: the corrected utilities as one flat copy, on which the gate of all tensors takes a few kernels, and the
        minimum and maximum of the corrected or uncorrected utilities
    """
    beta, utilities = batch.options["beta_utility"], batch.state("avg_utility")
    th._foreach_mul_(utilities, beta)
    th._foreach_addcmul_(utilities, batch.grads, batch.weights, value=beta - 1.0)
    flat = th.cat([utility.reshape(-1) for utility in utilities])
    uncorrected_range = None if corrected_range else th.aminmax(flat)
    th._foreach_div_(split_like(flat, utilities), batch.bias_corrections(beta))
    return flat, uncorrected_range or th.aminmax(flat)


def _plasticity(utility: Tensor, low: Tensor, high: Tensor, utility_normalization: UtilityNormalization) -> Tensor:
    """``1 − s`` of every element, as ``sigmoid`` of the negated argument of s; consumes ``utility``.

    A degenerate range is divided by infinity, which sends every quotient to the 0 that the formulas ask for.
    """
    low, high = low.to(utility), high.to(utility)
    if utility_normalization == "minmax":
        span = high - low
        utility.sub_(low).div_(th.where(span > 0, span, th.inf))
        # The clamp of the formula only guards against rounding, which the sigmoid does not mind.
        return utility.mul_(-2.0).add_((span > 0).to(utility)).sigmoid_()
    if utility_normalization == "max":
        high = th.where(high > 0, high, th.inf)
    return utility.div_(high).neg_().sigmoid_()


def _adam_directions(batch: TensorBatch) -> list[Tensor]:
    beta1, beta2 = batch.options["betas"]
    exp_avgs, exp_avg_sqs = batch.state("exp_avg"), batch.state("exp_avg_sq")
    th._foreach_lerp_(exp_avgs, batch.grads, 1.0 - beta1)
    th._foreach_mul_(exp_avg_sqs, beta2)
    th._foreach_addcmul_(exp_avg_sqs, batch.grads, batch.grads, value=1.0 - beta2)
    denominators = th._foreach_sqrt(exp_avg_sqs)
    th._foreach_div_(denominators, [correction**0.5 for correction in batch.bias_corrections(beta2)])
    th._foreach_add_(denominators, batch.options["eps"])
    th._foreach_mul_(denominators, batch.bias_corrections(beta1))
    return list(th._foreach_div(exp_avgs, denominators))


def _root_mean_squares(updates: list[Tensor]) -> list[Tensor]:
    norms = th._foreach_norm(updates)
    return list(th._foreach_div(norms, [update.numel() ** 0.5 for update in updates]))
