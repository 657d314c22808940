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
    """Tensors of one parameter group that have a gradient and share device, dtype and step, as lists in one order.

    :param options: the options of the group
    :param params: the optimizer's own tensors
    :param grads: their gradients, the user's tensors
    :param states: per tensor ``step`` (int) and ``avg_utility``, and for AdaptiveUPGD ``exp_avg`` and ``exp_avg_sq``
    """

    options: Options
    params: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Number of steps that the tensors took part in; it differs where one got its first gradient late."""
        step: int = self.states[0]["step"]
        return step

    def takes(self, param: Tensor, state: dict[str, Any]) -> bool:
        """Whether a tensor of the same group belongs here."""
        first = self.params[0]
        return first.device == param.device and first.dtype == param.dtype and self.step == state["step"]

    def append(self, param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        self.params.append(param)
        self.grads.append(grad)
        self.states.append(state)

    @property
    def dtype(self) -> th.dtype:
        """The dtype of the state."""
        return state_dtype(self.params[0])

    def state(self, name: str) -> list[Tensor]:
        """One state tensor of every parameter."""
        return [state[name] for state in self.states]

    def bias_correction(self, beta: float) -> float:
        """``1 − β^t``."""
        return 1.0 - beta**self.step

    def draw_noise(self, generator: th.Generator | None) -> Tensor | None:
        """Draw ``N(0, σ²)`` for every tensor, all in one flat draw, which is what makes it fast.

        :return: flat, in the order of the parameters, or None if sigma is 0 (then nothing is drawn)
        """
        sigma = self.options["sigma"]
        if sigma == 0:
            return None
        n_elements = sum(param.numel() for param in self.params)
        flat = th.empty(n_elements, dtype=self.dtype, device=self.params[0].device)
        return flat.normal_(0.0, sigma, generator=generator)


def global_range(ranges: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Merge the ranges of several tensors.

    :param ranges: (minimum, maximum) of each, 0-d, of any floating dtype and device
    :return: global minimum and maximum, 0-d, on the first one's device and in the widest dtype
    """
    if len(ranges) == 1:
        return ranges[0]
    device = ranges[0][0].device
    low = th.stack([low.to(device) for low, _ in ranges]).amin()
    high = th.stack([high.to(device) for _, high in ranges]).amax()
    return low, high
