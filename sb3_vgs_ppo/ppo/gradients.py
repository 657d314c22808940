"""The gradients of one update: their norm, and clipping by it.

Both are those of ``torch.nn.utils.clip_grad_norm_``, in fewer operations: nothing is sorted by device, and gradients
that lie back to back are treated as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch as th

from sb3_vgs_ppo._flat import FlatView


class Gradients:
    """
    ``.grad`` of the trained parameters.

    :param parameters: on one device
    :param as_sb3: round the norm as SB3 does, which takes the norm of the tensors' norms
    """

    def __init__(self, parameters: Sequence[th.Tensor], as_sb3: bool) -> None:
        self.parameters = parameters
        self._as_sb3 = as_sb3
        self._view = FlatView()

    def present(self) -> list[th.Tensor]:
        """:return: the gradients that are there"""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def clear(self) -> None:
        """Let the next backward pass start anew, as ``Optimizer.zero_grad`` does."""
        for parameter in self.parameters:
            parameter.grad = None

    def norm(self) -> th.Tensor:
        """:return: 2-norm of all elements together, 0-d"""
        gradients = self.present()
        flat = None if self._as_sb3 else self._view.of(gradients)
        norm: th.Tensor = th.linalg.vector_norm(th.stack(th._foreach_norm(gradients)) if flat is None else flat)
        return norm

    def clip_(self, norm: th.Tensor, max_norm: float) -> None:
        """
        Scale the gradients down, in place, to a norm of at most ``max_norm``.

        :param norm: their :meth:`norm`, finite
        :param max_norm: upper bound
        """
        factor = (max_norm / (norm + 1e-6)).clamp_(max=1.0)
        gradients = self.present()
        flat = self._view.of(gradients)
        th._foreach_mul_(gradients if flat is None else [flat], factor)
