"""The implementation for float32 on a CPU: four loops, where ``flat_step.py`` needs twenty operations of torch.

Only the noise and the sigmoid stay torch's: the one because its draws must be the same, the other because torch takes
eight of them at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch as th

from sb3_vgs_ppo._numba import loops
from sb3_vgs_ppo.optim.flat_step import FlatBatch, smallest_positive
from sb3_vgs_ppo.optim.options import Options, UtilityNormalization


def loops_for(flats: Sequence[FlatBatch]) -> ModuleType | None:
    """
    :param flats: what a step works on
    :return: :mod:`sb3_vgs_ppo.optim.loops` if they can do it, else None
    """
    if th.compiler.is_compiling():
        return None
    suitable = all(
        flat.weights.is_cpu and flat.weights.dtype == th.float32 and flat.batch.options["noise"] == "absolute"
        for flat in flats
    )
    return loops("sb3_vgs_ppo.optim.loops") if suitable else None


def loop_step(
    flats: Sequence[FlatBatch],
    kernels: ModuleType,
    *,
    adaptive: bool,
    utility_normalization: UtilityNormalization,
    generator: th.Generator | None,
) -> None:
    """Do what ``single_tensor_step`` does, with the same parameters and the same draws of noise.

    :param kernels: as :func:`loops_for` returns them
    """
    corrections = [flat.batch.bias_correction(flat.batch.options["beta_utility"]) for flat in flats]
    ranges = []
    for flat, correction in zip(flats, corrections, strict=True):
        low, high = _advance_utility(flat, kernels)
        ranges.append((low, high) if utility_normalization == "official" else (low / correction, high / correction))
    low, high = ranges[0] if len(ranges) == 1 else (float(np.min(ranges)), float(np.max(ranges)))  # NaN if any is
    gate = _gate(low, high, utility_normalization)
    for flat, correction in zip(flats, corrections, strict=True):
        plasticity = _plasticity(flat, kernels, gate, correction)
        noise = flat.batch.draw_noise(generator)
        _move(flat, kernels, _adam_direction(flat, kernels) if adaptive else flat.arrays["grads"], noise, plasticity)
        flat.write_back()


class _Gate(NamedTuple):
    """``1 − s = sigmoid(offset + slope·(û − low) / max(span, floor))``"""

    low: float
    span: float
    offset: float
    slope: float
    floor: float = -math.inf


def _gate(low: float, high: float, utility_normalization: UtilityNormalization) -> _Gate:
    """
    :param low: the smallest utility
    :param high: the largest one
    """
    if utility_normalization == "minmax":
        # A range of 0 is divided into nothing but zeros, so any divisor will do, and asks for a gate of sigmoid(0)
        span = high - low
        return _Gate(low, span, 1.0 if span > 0.0 else span, -2.0, floor=smallest_positive(th.float32))
    if utility_normalization == "max":
        return _Gate(0.0, high if high > 0.0 else math.inf, 0.0, -1.0)
    return _Gate(0.0, high, 0.0, -1.0)


def _sign(options: Options) -> float:
    return -1.0 if options["maximize"] else 1.0


def _advance_utility(flat: FlatBatch, kernels: ModuleType) -> tuple[float, float]:
    """:return: minimum and maximum of the uncorrected utility"""
    arrays, options = flat.arrays, flat.batch.options
    beta = options["beta_utility"]
    gain = _sign(options) * (beta - 1.0)
    found: tuple[float, float] = kernels.advance_utility(
        arrays["grads"], arrays["weights"], arrays["avg_utility"], beta, gain
    )
    return found


def _plasticity(flat: FlatBatch, kernels: ModuleType, gate: _Gate, correction: float) -> th.Tensor:
    """``1 − s`` of every element. The utility stays uncorrected; instead the bounds are made so."""
    low, span = gate.low * correction, max(gate.span * correction, gate.floor)
    arguments = th.empty_like(flat.weights)
    kernels.gate_arguments(flat.arrays["avg_utility"], low, span, gate.offset, gate.slope, arguments.numpy())
    return arguments.sigmoid_()


def _adam_direction(flat: FlatBatch, kernels: ModuleType) -> np.ndarray:
    """Advance both averages. :return: ``m̂ / (√v̂ + eps)``, see ``flat_step.py``"""
    arrays, batch = flat.arrays, flat.batch
    beta1, beta2 = batch.options["betas"]
    root2 = batch.bias_correction(beta2) ** 0.5
    eps, scale = batch.options["eps"] * root2, root2 / batch.bias_correction(beta1)
    direction = np.empty_like(arrays["grads"])
    kernels.advance_adam(arrays["grads"], arrays["exp_avg"], arrays["exp_avg_sq"], beta1, beta2, eps, scale, direction)
    return direction


def _move(
    flat: FlatBatch, kernels: ModuleType, direction: np.ndarray, noise: th.Tensor | None, plasticity: th.Tensor
) -> None:
    options, xi = flat.batch.options, None if noise is None else noise.numpy()
    lr = options["lr"]
    decay = 1.0 - lr * options["weight_decay"]
    kernels.move(flat.arrays["weights"], direction, xi, plasticity.numpy(), decay, 2.0 * lr, _sign(options))
