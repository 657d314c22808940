"""The readable implementation of a step, one tensor after the other: the oracle of the fast one in ``flat_step.py``.

It follows the four numbered formulas of ``upgd.py`` to the letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch as th
from torch import Tensor

from sb3_vgs_ppo._flat import split_like
from sb3_vgs_ppo.optim.options import Options, UtilityNormalization
from sb3_vgs_ppo.optim.tensor_batch import TensorBatch, global_range


def single_tensor_step(
    batches: Sequence[TensorBatch],
    *,
    adaptive: bool,
    utility_normalization: UtilityNormalization,
    generator: th.Generator | None,
) -> None:
    """Update parameters and state in place.

    :param batches: at least one; their ``step`` counts this step already
    :param adaptive: Adam's direction instead of the gradient
    :param utility_normalization: how the utility becomes the gate
    :param generator: source of the noise
    """
    for batch in batches:
        for param, raw_grad, state in zip(batch.params, batch.grads, batch.states, strict=True):
            beta = batch.options["beta_utility"]
            state["avg_utility"].mul_(beta).sub_((1.0 - beta) * _minimized(raw_grad, batch) * param.to(batch.dtype))

    low, high = _utility_range(batches, corrected=utility_normalization != "official")

    for batch in batches:
        options = batch.options
        noise = batch.draw_noise(generator)
        pieces = None if noise is None else split_like(noise, batch.params)
        for i, (param, raw_grad, state) in enumerate(zip(batch.params, batch.grads, batch.states, strict=True)):
            grad, weight = _minimized(raw_grad, batch), param.to(batch.dtype)
            gate = _gate(_corrected_utility(state, options), low, high, utility_normalization)
            update = _adam_direction(grad, state, options) if adaptive else grad
            if pieces is not None:
                scale = _root_mean_square(update) if options["noise"] == "relative" else 1.0
                update = update + scale * pieces[i]
            weight.mul_(1.0 - options["lr"] * options["weight_decay"])
            weight.sub_(2.0 * options["lr"] * update * (1.0 - gate))
            if weight is not param:
                param.copy_(weight)  # rounded from float32 to half precision


def gates(batches: Sequence[TensorBatch], utility_normalization: UtilityNormalization) -> Iterator[list[Tensor]]:
    """Read the gates from states as they are.

    :param batches: at least one; gradients are not needed
    :return: per batch the gate s of every tensor, in its shape
    """
    low, high = _utility_range(batches, corrected=utility_normalization != "official")
    for batch in batches:
        utilities = [_corrected_utility(state, batch.options) for state in batch.states]
        yield [_gate(utility, low, high, utility_normalization) for utility in utilities]


def _minimized(grad: Tensor, batch: TensorBatch) -> Tensor:
    """The gradient of the objective to minimize, in the dtype of the state."""
    grad = grad.to(batch.dtype)
    return -grad if batch.options["maximize"] else grad


def _corrected_utility(state: dict[str, Any], options: Options) -> Tensor:
    corrected: Tensor = state["avg_utility"] / (1.0 - options["beta_utility"] ** state["step"])
    return corrected


def _utility_range(batches: Sequence[TensorBatch], *, corrected: bool) -> tuple[Tensor, Tensor]:
    """Minimum and maximum over all tensors of all groups, 0-d."""
    return global_range(
        [
            th.aminmax(_corrected_utility(state, batch.options) if corrected else state["avg_utility"])
            for batch in batches
            for state in batch.states
        ]
    )


def _gate(utility: Tensor, low: Tensor, high: Tensor, utility_normalization: UtilityNormalization) -> Tensor:
    """The gate s of every element: near 1 protects it, near 0 leaves it plastic."""
    low, high = low.to(utility.device), high.to(utility.device)
    if utility_normalization == "minmax":
        # No additive epsilon in the denominator: it would make the gate depend on the scale of the loss.
        span = high - low
        x = th.where(span > 0, (utility - low) / span, 0.5).clamp(0.0, 1.0)
        return th.sigmoid(2.0 * (x - 0.5))
    if utility_normalization == "max":
        return th.sigmoid(th.where(high > 0, utility / high, 0.0))
    return th.sigmoid(utility / high)


def _adam_direction(grad: Tensor, state: dict[str, Any], options: Options) -> Tensor:
    """Adam's update before the learning rate (Kingma & Ba 2015, Algorithm 1); advances both averages."""
    beta1, beta2 = options["betas"]
    exp_avg, exp_avg_sq, step = state["exp_avg"], state["exp_avg_sq"], state["step"]
    exp_avg.mul_(beta1).add_((1.0 - beta1) * grad)
    exp_avg_sq.mul_(beta2).add_((1.0 - beta2) * grad * grad)
    m_hat = exp_avg / (1.0 - beta1**step)
    v_hat = exp_avg_sq / (1.0 - beta2**step)
    direction: Tensor = m_hat / (v_hat.sqrt() + options["eps"])
    return direction


def _root_mean_square(update: Tensor) -> Tensor:
    return update.square().mean().sqrt()
