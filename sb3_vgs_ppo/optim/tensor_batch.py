"""What both implementations of a step work on: tensors with their state, the global range of the utility, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch as th
from torch import Tensor

from sb3_vgs_ppo.optim.options import Options


def state_dtype(param: Tensor) -> th.dtype:
    """Dtype in which the step of a tensor is computed and its state is kept: at least float32."""
    return th.float32 if param.dtype.itemsize < th.float32.itemsize else param.dtype


@dataclass
class TensorBatch:
    """Tensors of one parameter group that have a gradient and share device and dtype, as lists in one order.

    :param options: the options of the group
    :param params: the optimizer's own tensors
    :param weights: ``params`` in the state's dtype: the same tensors, or float32 copies of those in half precision
    :param grads: gradients of the objective to *minimize*, in the state's dtype; maybe the user's tensors, so read-only
    :param states: per tensor ``step`` (int) and ``avg_utility``, and for AdaptiveUPGD ``exp_avg`` and ``exp_avg_sq``
    """

    options: Options
    params: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)

    def append(self, param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        dtype = state_dtype(param)
        grad = grad.to(dtype)
        self.params.append(param)
        self.weights.append(param.to(dtype))
        self.grads.append(-grad if self.options["maximize"] else grad)
        self.states.append(state)

    def state(self, name: str) -> list[Tensor]:
        """One state tensor of every parameter."""
        return [state[name] for state in self.states]

    def bias_corrections(self, beta: float) -> list[float]:
        """``1 − β^t`` of every tensor; t differs where a tensor got its first gradient late."""
        return [1.0 - beta ** state["step"] for state in self.states]

    def draw_noise(self, generator: th.Generator | None) -> list[Tensor] | None:
        """Draw ``N(0, σ²)`` for every tensor, all in one flat draw, which is what makes it fast.

        :return: contiguous tensors in the shapes of the parameters, or None if sigma is 0 (then nothing is drawn)
        """
        sigma = self.options["sigma"]
        if sigma == 0:
            return None
        n_elements = sum(weight.numel() for weight in self.weights)
        flat = th.empty(n_elements, dtype=self.weights[0].dtype, device=self.weights[0].device)
        return split_like(flat.normal_(0.0, sigma, generator=generator), self.weights)

    def write_back(self) -> None:
        """Round the new weights to the parameters' dtype, where that differs."""
        for param, weight in zip(self.params, self.weights, strict=True):
            if weight is not param:
                param.copy_(weight)


def split_like(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Views into a flat tensor, one per tensor and in its shape."""
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]


def global_range(ranges: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Merge the ranges of several tensors.

    :param ranges: (minimum, maximum) of each, 0-d, of any floating dtype and device
    :return: global minimum and maximum, 0-d, on the first one's device and in the widest dtype
    """
    device = ranges[0][0].device
    low = th.stack([low.to(device) for low, _ in ranges]).amin()
    high = th.stack([high.to(device) for _, high in ranges]).amax()
    return low, high
