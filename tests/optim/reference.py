"""UPGD and AdaptiveUPGD in float64 NumPy, written from the formulas, with switches that break one formula each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

Mutation = Literal[
    "utility_sign",
    "gate_inverted",
    "range_of_last_tensor",
    "utility_not_bias_corrected",
    "moments_not_bias_corrected",
    "factor_two_missing",
    "decay_coupled",
    "decay_after_update",
    "noise_outside_gate",
    "noise_on_raw_gradient_scale",
]


@dataclass
class ReferenceTensor:
    """One tensor with its group's options; ``u``, ``m``, ``v`` are the averages, ``t`` counts steps with a gradient."""

    p: Array
    options: dict[str, Any]
    t: int = 0
    u: Array = field(init=False)
    m: Array = field(init=False)
    v: Array = field(init=False)

    def __post_init__(self) -> None:
        self.u, self.m, self.v = (np.zeros_like(self.p) for _ in range(3))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Reference:
    """One optimizer over all its tensors.

    :param tensors: all tensors of all groups
    :param adaptive: AdaptiveUPGD instead of UPGD
    :param mutation: the formula to break
    """

    def __init__(
        self, tensors: list[ReferenceTensor], *, adaptive: bool, normalization: str, mutation: Mutation | None = None
    ) -> None:
        self.tensors = tensors
        self.adaptive = adaptive
        self.normalization = normalization
        self.mutation = mutation

    def step(self, grads: list[Array | None], noise: list[Array | None]) -> None:
        """Update every tensor that has a gradient.

        :param grads: one per tensor, None where it takes no part
        :param noise: draws from N(0, 1), None where sigma is 0
        """
        active = [
            (tensor, grad, xi)
            for tensor, grad, xi in zip(self.tensors, grads, noise, strict=True)
            if grad is not None and grad.size > 0
        ]
        for tensor, grad, _ in active:
            sign = 1 if self.mutation == "utility_sign" else -1
            beta = tensor.options["beta_utility"]
            tensor.t += 1
            tensor.u = beta * tensor.u + sign * (1 - beta) * grad * tensor.p
        corrected = [self.corrected_utility(tensor) for tensor, _, _ in active]
        ranged = [tensor.u for tensor, _, _ in active] if self.normalization == "official" else corrected
        if self.mutation == "range_of_last_tensor":
            ranged = ranged[-1:]
        low, high = min(u.min() for u in ranged), max(u.max() for u in ranged)
        for (tensor, grad, xi), u_hat in zip(active, corrected, strict=True):
            s = self.gate(u_hat, low, high)
            self.update(tensor, grad, xi, 1 - s if self.mutation == "gate_inverted" else s)

    def corrected_utility(self, tensor: ReferenceTensor) -> Array:
        if self.mutation == "utility_not_bias_corrected":
            return tensor.u
        return tensor.u / (1 - tensor.options["beta_utility"] ** tensor.t)

    def gate(self, u_hat: Array, low: float, high: float) -> Array:
        if self.normalization == "minmax":
            x = (u_hat - low) / (high - low) if high > low else np.full_like(u_hat, 0.5)
            return sigmoid(2 * (np.clip(x, 0, 1) - 0.5))
        if self.normalization == "max" and high <= 0:
            return np.full_like(u_hat, 0.5)
        return sigmoid(u_hat / high)

    def update(self, tensor: ReferenceTensor, grad: Array, xi: Array | None, s: Array) -> None:
        lr, decay = tensor.options["lr"], tensor.options["weight_decay"]
        factor = 1 if self.mutation == "factor_two_missing" else 2
        if self.mutation == "decay_coupled":
            grad, decay = grad + decay * tensor.p, 0.0
        d = self.direction(tensor, grad)
        sigma = tensor.options["sigma"]
        if tensor.options["noise"] == "relative":
            scaled_by = grad if self.mutation == "noise_on_raw_gradient_scale" else d
            sigma = sigma * np.sqrt(np.mean(scaled_by**2))
        noise = 0.0 if xi is None else sigma * xi
        if self.mutation == "noise_outside_gate":
            change = factor * lr * (d * (1 - s) + noise)
        else:
            change = factor * lr * (d + noise) * (1 - s)
        if self.mutation == "decay_after_update":
            tensor.p = (tensor.p - change) * (1 - lr * decay)
        else:
            tensor.p = tensor.p * (1 - lr * decay) - change

    def direction(self, tensor: ReferenceTensor, grad: Array) -> Array:
        if not self.adaptive:
            return grad
        beta1, beta2 = tensor.options["betas"]
        tensor.m = beta1 * tensor.m + (1 - beta1) * grad
        tensor.v = beta2 * tensor.v + (1 - beta2) * grad**2
        if self.mutation == "moments_not_bias_corrected":
            return tensor.m / (np.sqrt(tensor.v) + tensor.options["eps"])
        m_hat, v_hat = tensor.m / (1 - beta1**tensor.t), tensor.v / (1 - beta2**tensor.t)
        return m_hat / (np.sqrt(v_hat) + tensor.options["eps"])
