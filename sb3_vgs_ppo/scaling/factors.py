"""Factors of all granularities, and what is done with them: gradients are multiplied, or an optimizer's step is.

There is one factor for everything, one per tensor, or one per element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch as th

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.scaling.arrays import Array, as_array, as_tensor, at_least, silent, zero_unless
from sb3_vgs_ppo.scaling.layout import Layout
from sb3_vgs_ppo.scaling.moments import Observation
from sb3_vgs_ppo.scaling.settings import Granularity


class Factors(NamedTuple):
    """
    :param values: 0-d for ``"global"`` (a float on a CPU), shape (P,) for ``"tensor"``, (N,) for ``"element"``
    :param granularity: what each of them is of
    :param layout: of the parameters
    """

    values: Array
    granularity: Granularity
    layout: Layout

    def mean(self) -> Array:
        """:return: mean over all elements, 0-d float64"""
        if self.granularity == "global":
            return self.values
        if self.granularity == "tensor":
            sizes = self.layout.counts
            return (self.values * sizes).sum() / at_least(sizes.sum(), 1.0)
        return as_array(self.values.mean(dtype=th.float64))

    @silent
    def norm_ratio(self, observation: Observation) -> Array:
        """:return: norm of the gradient after scaling over that before it, of finite tensors, 0-d"""
        if self.granularity == "global":
            return self.values
        squares = zero_unless(observation.finite, observation.squares())
        total = at_least(squares.sum(), 1e-300)
        if self.granularity == "tensor":
            return ((self.values * self.values * squares).sum() / total) ** 0.5
        scaled = (self.values * as_tensor(observation.elements)).nan_to_num_(0.0, 0.0, 0.0)
        return as_array(th.linalg.vector_norm(scaled, dtype=th.float64)) / total**0.5

    def scale_(self, gradients: list[th.Tensor], present: Callable[[], Sequence[int]]) -> None:
        """
        Multiply gradients in place.

        :param gradients: of some parameters, in their order; for ``"global"`` of any tensors
        :param present: says which parameters these are, if it matters
        """
        if self.granularity != "global":
            th._foreach_mul_(gradients, self._pieces(gradients, present()))
        else:
            # As a tensor, and not of float64, it is three times faster; 16 bits would be too coarse
            factor = th.as_tensor(self.values, dtype=self.layout.dtype, device=self.layout.device)
            th._foreach_mul_(gradients, factor)

    def scale_flat_(self, flat: th.Tensor) -> None:
        """:meth:`scale_` where all gradients are one vector, shape (N,)"""
        if self.granularity == "global" and isinstance(self.values, th.Tensor):
            self.scale_([flat], tuple)
        else:
            flat.mul_(self._whole())

    def shorten_(self, parameters: list[th.Tensor], old: list[th.Tensor]) -> None:
        """
        Let parameters keep only a part of the way that they have moved: p ← p_old + γ·(p − p_old).

        :param parameters: all P of them
        :param old: copies from before they moved; overwritten
        """
        if self.granularity == "global":
            weights = [th.as_tensor(self.values, dtype=parameter.dtype) for parameter in parameters]
        else:
            pieces = self._pieces(parameters, range(len(parameters)))
            weights = [piece.to(parameter.dtype) for piece, parameter in zip(pieces, parameters, strict=True)]
        # lerp ends at p exactly where γ is 1
        th._foreach_lerp_(old, parameters, weights)
        th._foreach_copy_(parameters, old)

    def shorten_flat_(self, flat: th.Tensor, old: th.Tensor) -> None:
        """:meth:`shorten_` where all parameters are one vector, shape (N,)"""
        flat.copy_(old.lerp_(flat, self._whole()))

    def _whole(self) -> th.Tensor | float:
        """:return: by what all elements as one vector are multiplied: 0-d, or shape (N,)"""
        if self.granularity == "tensor":
            return self.layout.spread(self.values)
        return self.values.to(self.layout.dtype) if isinstance(self.values, th.Tensor) else self.values

    def _pieces(self, like: list[th.Tensor], present: Sequence[int]) -> list[th.Tensor]:
        """:return: the factors of each tensor named by ``present``, 0-d or in its shape"""
        if self.granularity == "tensor":
            values = as_tensor(self.values).to(self.layout.dtype).unbind()
            return [values[index] for index in present]
        pieces = self.values.split(list(self.layout.sizes))
        return [pieces[index].view(tensor.shape) for index, tensor in zip(present, like, strict=True)]


def averaging_of(optimizer: th.optim.Optimizer) -> float:
    """
    :param optimizer: any of torch's or this package's
    :return: decay β₁ with which it averages gradients: the first of ``betas``, or ``momentum``; 0 if it has neither
    :raises UserInputError: its parameter groups differ in it
    """
    found = {
        float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0)) for group in optimizer.param_groups
    }
    if len(found) > 1:
        raise UserInputError(
            f"the optimizer's parameter groups average gradients with {sorted(found)}; remedy: momentum=<one of them>"
        )
    return found.pop()
