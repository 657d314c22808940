"""The arithmetic of a step over float32 buffers, in one pass each; import it through :mod:`sb3_vgs_ppo._numba`.

``loop_step.py`` calls them in this order; ``single_tensor.py`` says what they compute.
"""

from __future__ import annotations

import math

import numpy as np

from sb3_vgs_ppo._numba import compiled

_WITHOUT_SIGN = np.int32(0x7FFFFFFF)


@compiled()
def advance_utility(
    grads: np.ndarray, weights: np.ndarray, utility: np.ndarray, beta: float, gain: float
) -> tuple[float, float]:
    """``u ← β·u + gain·g·p``. :return: its smallest and largest element, both NaN if any is"""
    kept, entering = np.float32(beta), np.float32(gain)
    for j in range(utility.size):
        utility[j] = kept * utility[j] + entering * (grads[j] * weights[j])
    # Bits of a float32, those of the negative ones turned round, are ordered as the numbers are, with NaN at both ends;
    # a CPU compares eight at once
    bits = utility.view(np.int32)
    lowest, highest = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for j in range(bits.size):
        key = bits[j] ^ ((bits[j] >> 31) & _WITHOUT_SIGN)
        lowest = key if key < lowest else lowest
        highest = key if key > highest else highest
    ends = np.empty(2, np.int32)
    ends[0] = lowest ^ ((lowest >> 31) & _WITHOUT_SIGN)
    ends[1] = highest ^ ((highest >> 31) & _WITHOUT_SIGN)
    low, high = ends.view(np.float32)
    return (math.nan, math.nan) if math.isnan(low) or math.isnan(high) else (float(low), float(high))


@compiled()
def gate_arguments(
    utility: np.ndarray, low: float, span: float, offset: float, slope: float, arguments: np.ndarray
) -> None:
    """``offset + slope·(u − low) / span``, of which ``1 − s`` is the sigmoid."""
    start, width, shift, factor = np.float32(low), np.float32(span), np.float32(offset), np.float32(slope)
    for j in range(utility.size):
        arguments[j] = shift + factor * ((utility[j] - start) / width)


@compiled()
def move(
    weights: np.ndarray,
    direction: np.ndarray,
    noise: np.ndarray | None,
    plasticity: np.ndarray,
    decay: float,
    lr: float,
    sign: float,
) -> None:
    """``p ← decay·p − lr·(sign·d + ξ)·(1 − s)``"""
    kept, rate, direction_sign = np.float32(decay), np.float32(lr), np.float32(sign)
    for j in range(weights.size):
        update = direction_sign * direction[j]
        if noise is not None:
            update += noise[j]
        weights[j] = kept * weights[j] - rate * (update * plasticity[j])


@compiled()
def advance_adam(
    grads: np.ndarray,
    exp_avg: np.ndarray,
    exp_avg_sq: np.ndarray,
    beta1: float,
    beta2: float,
    eps: float,
    scale: float,
    direction: np.ndarray,
) -> None:
    """Update both averages. ``direction`` becomes ``scale·m / (√v + eps)``."""
    rate1, kept2, rate2 = np.float32(1.0 - beta1), np.float32(beta2), np.float32(1.0 - beta2)
    small, factor = np.float32(eps), np.float32(scale)
    for j in range(grads.size):
        exp_avg[j] += rate1 * (grads[j] - exp_avg[j])
        exp_avg_sq[j] = kept2 * exp_avg_sq[j] + rate2 * (grads[j] * grads[j])
        direction[j] = factor * (exp_avg[j] / (np.sqrt(exp_avg_sq[j]) + small))
