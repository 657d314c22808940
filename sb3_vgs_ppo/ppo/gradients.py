"""The gradients of one update: their norm, and clipping by it.

Both are those of ``torch.nn.utils.clip_grad_norm_``, in fewer operations: nothing is sorted by device, and gradients
that lie back to back are treated as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch as th

from sb3_vgs_ppo._flat import flat_view, pack


class Gradients:
    """
    ``.grad`` of the trained parameters, wherever autograd puts them.

    :param parameters: on one device
    :param as_sb3: round the norm as SB3 does, which takes the norm of the tensors' norms
    """

    flat: th.Tensor | None = None
    """All of them as one tensor in the parameters' order, where they are kept so."""

    def __init__(self, parameters: Sequence[th.Tensor], as_sb3: bool) -> None:
        self.parameters = parameters
        self._as_sb3 = as_sb3

    def present(self) -> list[th.Tensor]:
        """:return: the gradients that are there"""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def clear(self) -> None:
        """Let the next backward pass start anew, as ``Optimizer.zero_grad`` does."""
        for parameter in self.parameters:
            parameter.grad = None

    def norm(self) -> th.Tensor:
        """:return: 2-norm of all elements together, 0-d"""
        flat = None if self._as_sb3 else self.flat
        norm: th.Tensor = th.linalg.vector_norm(th.stack(th._foreach_norm(self.present())) if flat is None else flat)
        return norm

    def clip_(self, norm: th.Tensor, max_norm: float) -> None:
        """
        Scale the gradients down, in place, to a norm of at most ``max_norm``.

        :param norm: their :meth:`norm`, finite
        :param max_norm: upper bound
        """
        factor = (max_norm / (norm + 1e-6)).clamp_(max=1.0)
        if self.flat is None:
            th._foreach_mul_(self.present(), factor)
        else:
            self.flat.mul_(factor)


class PackedGradients(Gradients):
    """
    Gradients in one buffer, for a backward pass that overwrites all of them.

    :param parameters: on one device and of one dtype; their ``.grad`` become views of the buffer
    :param as_sb3: as above
    """

    flat: th.Tensor

    def __init__(self, parameters: Sequence[th.Tensor], as_sb3: bool) -> None:
        super().__init__(parameters, as_sb3)
        self._pieces = pack(parameters)
        self.flat = flat_view(self._pieces)  # type: ignore[assignment]  # they were packed just now
        for parameter, piece in zip(parameters, self._pieces, strict=True):
            parameter.grad = piece

    def present(self) -> list[th.Tensor]:
        return self._pieces

    def clear(self) -> None:
        """Nothing is added up."""
