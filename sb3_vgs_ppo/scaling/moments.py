"""Sums over the elements of each tensor's gradient: all that the tensor-wise measures need to know of it.

The sums are taken in float64, so that ``E[x²] − E[x]²`` still has eight digits when the mean is 10⁴ times the standard
deviation (float32 would have none). No sum is read on the host, so an accelerator is never waited for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch as th

from sb3_vgs_ppo.scaling.arrays import Array, as_array, at_least, join, largest, silent, stack, zero_unless
from sb3_vgs_ppo.scaling.layout import Layout

# Small gradients are concatenated up to this many elements and reduced together, so that a thousand small tensors cost
# about as much as one of their total size.
GROUP_ELEMENTS = 2**16

# Larger gradients are reduced in blocks, of which a float64 copy is made: on a CPU it fits into the cache, elsewhere it
# stays below 128 MiB and launches are few.
CPU_BLOCK, DEVICE_BLOCK = 2**16, 2**24

# What is only logged waits until this many observations can be summed up at once: enough to make that cheap, few enough
# to stay small in memory.
BATCH = 64

_SUM, _ABS, _SQUARE, _MAX = range(4)


class Observation(NamedTuple):
    """What one gradient contributes to the statistics.

    :param sums: Σg, Σ|g|, Σg² and max|g| of each tensor, shape (4, P); NaN where a tensor has no gradient
    :param numel: number of elements of each tensor, shape (P,)
    :param n_gradients: number of tensors that have a gradient, finite or not
    :param elements: a copy of all gradients as one vector, 0 where there is none, shape (N,); None unless asked for
    """

    sums: Array
    numel: Array
    n_gradients: int
    elements: Array | None = None

    @property
    def finite(self) -> Array:
        """Tensors that are observed, shape (P,), bool: they have a gradient and no NaN or Inf in it (a float64 gradient
        whose squares overflow counts as infinite)."""
        return finite_tensors(self.sums)

    def mean(self) -> Array:
        """:return: mean(g) of each tensor, shape (P,)"""
        return self.sums[_SUM] / self.numel

    def mean_magnitude(self) -> Array:
        """:return: mean|g| of each tensor, shape (P,)"""
        return self.sums[_ABS] / self.numel

    def mean_square(self) -> Array:
        """:return: mean(g²) of each tensor, shape (P,)"""
        return self.sums[_SQUARE] / self.numel

    def squares(self) -> Array:
        """:return: Σg² of each tensor, shape (P,)"""
        return self.sums[_SQUARE]

    def largest(self) -> Array:
        """:return: max|g| of each tensor, shape (P,)"""
        return self.sums[_MAX]


def finite_tensors(sums: Array) -> Array:
    """:return: where Σg² is finite (then every element is), shape (..., P) for sums of shape (..., 4, P)"""
    return sums[..., _SQUARE, :] < math.inf


def squared_norm(sums: th.Tensor) -> th.Tensor:
    """:return: ‖g‖² over all finite tensors, shape (...) for sums of shape (..., 4, P)"""
    return sums[..., _SQUARE, :].masked_fill(~finite_tensors(sums), 0.0).sum(-1)


def global_figures(sums: Array, numel: Array) -> tuple[Array, Array]:
    """Figures of a = |g| over the elements of all finite tensors together.

    :param sums: shape (K, 4, P), of K gradients
    :param numel: shape (P,)
    :return: mean(a), unbiased var(a) (0 for a single element), ‖a‖ and max(a), shape (K, 4); and 1.0 where they are of
        something, 0.0 where no tensor was finite, shape (K,)
    """
    finite = finite_tensors(sums)
    sums = zero_unless(finite[:, None], sums)
    count = (finite * numel).sum(-1)
    totals = sums.sum(-1)
    total, energy = totals[:, _ABS], totals[:, _SQUARE]
    mean = total / at_least(count, 1.0)
    variance = at_least(energy - total * mean, 0.0) / at_least(count - 1.0, 1.0)
    return stack((mean, variance, energy**0.5, largest(sums[:, _MAX]))).T, (count > 0) * 1.0


class _Group(NamedTuple):
    """Consecutive gradients that are reduced together.

    :param members: which of the gradients
    :param elements: which of all elements
    :param bounds: where each of them begins among these elements, and where the last one ends
    """

    members: slice
    elements: slice
    bounds: np.ndarray | th.Tensor


class GradientReader:
    """Reads the gradients of P parameters into an :class:`Observation`.

    :param parameters: tensors on one device; those without elements are never observed
    :param per_element: observe every element, at the price of a copy of the gradients
    """

    def __init__(self, parameters: Sequence[th.Tensor], per_element: bool = False) -> None:
        self.parameters: tuple[th.Tensor, ...] = tuple(parameters)
        self.layout: Layout = Layout.of(self.parameters)
        self._per_element = per_element
        self._sizes = self.layout.sizes
        self._device = self.layout.device
        self.numel: th.Tensor = self.layout.numel
        self._nonempty = [index for index, size in enumerate(self._sizes) if size]
        self._present: list[int] = []
        self._groups: list[_Group] = []
        self._columns: Array | None = None
        self._flat: th.Tensor | None = None  # the last vector of all gradients, its place, and as an array
        self._flat_place = 0
        self._flat_array: np.ndarray | None = None

    def gradients(self) -> list[th.Tensor]:
        """:return: every gradient that is there and has elements"""
        return [p.grad for p, size in zip(self.parameters, self._sizes, strict=True) if p.grad is not None and size]

    def present(self) -> list[int]:
        """:return: which parameters :meth:`gradients` are of"""
        return [i for i, p in enumerate(self.parameters) if p.grad is not None and self._sizes[i]]

    def read(self, flat: th.Tensor | None = None) -> Observation:
        """
        Read every ``.grad`` that is there.

        :param flat: the gradients of all parameters as one tensor in their order, instead of ``.grad``
        :raises RuntimeError: a gradient is sparse
        """
        array = None if flat is None or len(self._nonempty) < len(self._sizes) else self.loop_array(flat)
        if array is not None and (loops := self.layout.loops) is not None:
            sums = loops.segment_sums(array, self.layout.bounds)
            return Observation(sums, self.layout.counts, len(self._sizes), array.copy() if self._per_element else None)
        present = self.present() if flat is None else self._nonempty
        if present != self._present:
            self._plan(present)
        try:
            gradients = self.gradients() if flat is None else flat
            blocks = [self._sums(self._values(gradients, group), group.bounds) for group in self._groups]
        except (RuntimeError, TypeError) as error:
            if any(p.grad is not None and p.grad.layout != th.strided for p in self.parameters):
                raise RuntimeError(
                    "VarianceGradientScaler does not support sparse gradients. Remedy: build the embedding with "
                    "sparse=False, or leave its parameter out of the scaler's list."
                ) from error
            raise
        sums = blocks[0] if len(blocks) == 1 and self._columns is None else self._arrange(blocks)
        elements = self._elements(flat) if self._per_element else None
        return Observation(sums, self.layout.counts, len(present), elements)

    def loop_array(self, flat: th.Tensor) -> np.ndarray | None:
        """
        :param flat: the gradients of all parameters as one tensor
        :return: the same memory as the loops take it; None where there are no loops for it
        """
        if self.layout.loops is None or flat.dtype != th.float32:
            return None
        # Remembered, since it takes as long as a loop over a thousand elements
        if flat is not self._flat or flat.data_ptr() != self._flat_place:
            self._flat, self._flat_array, self._flat_place = flat, flat.detach().numpy(), flat.data_ptr()
        return self._flat_array

    def _values(self, gradients: list[th.Tensor] | th.Tensor, group: _Group) -> th.Tensor:
        """
        :param gradients: all of them, as a list or as one vector
        :return: those of the group as one vector
        """
        if isinstance(gradients, th.Tensor):
            values = gradients if len(self._groups) == 1 else gradients[group.elements]
        elif len(group.bounds) == 2:
            values = gradients[group.members][0].flatten()
        else:
            values = th.cat([gradient.flatten() for gradient in gradients[group.members]])
        return values.detach()  # ``backward(create_graph=True)`` leaves gradients that require gradients

    def _arrange(self, blocks: list[Array]) -> Array:
        """
        :param blocks: sums of each group
        :return: sums of all tensors, NaN for those without a gradient, shape (4, P)
        """
        if blocks and self._columns is None:
            return join(blocks)
        sums = as_array(self.numel.new_full((4, len(self._sizes)), th.nan))
        if blocks:
            sums[:, self._columns] = join(blocks)
        return sums

    def _elements(self, flat: th.Tensor | None) -> Array:
        """:return: a copy of all gradients as one vector, shape (N,)"""
        if flat is not None:
            return as_array(flat.detach().to(self.layout.dtype, copy=True))
        elements = self.layout.zeros()
        for parameter, piece in zip(self.parameters, elements.split(list(self._sizes)), strict=True):
            if parameter.grad is not None:
                piece.copy_(parameter.grad.detach().flatten())
        return as_array(elements)

    def _plan(self, present: list[int]) -> None:
        """Decide which gradients are reduced together; kept until another set of tensors has gradients."""
        sizes = [self._sizes[index] for index in present]
        cuts, filled = [0], 0
        for position, size in enumerate(sizes):
            if filled + size > GROUP_ELEMENTS:
                cuts.append(position)
                filled = 0
            filled += size
        cuts.append(len(sizes))
        ends = np.cumsum([0, *sizes]).tolist()
        self._groups = [
            _Group(slice(a, b), slice(ends[a], ends[b]), self._bounds(sizes[a:b])) for a, b in pairwise(cuts) if b > a
        ]
        everything = len(present) == len(self._sizes)
        self._columns = None if everything else as_array(th.tensor(present, dtype=th.long, device=self._device))
        self._present = present

    def _bounds(self, sizes: list[int]) -> np.ndarray | th.Tensor:
        bounds = np.cumsum([0, *sizes])
        return bounds if self._device.type == "cpu" else th.from_numpy(bounds).to(self._device)

    def _sums(self, values: th.Tensor, bounds: np.ndarray | th.Tensor) -> Array:
        """
        :param values: gradients of a group, as one vector
        :param bounds: see :class:`_Group`
        :return: Σg, Σ|g|, Σg² and max|g| of each of them, shape (4, number of members), float64
        """
        if values.dtype == th.float32 and (loops := self.layout.loops) is not None:
            return loops.segment_sums(values.numpy(), bounds)
        if len(bounds) == 2:
            return as_array(_whole_sums(values))
        if isinstance(bounds, th.Tensor):
            return _device_segment_sums(values, bounds)
        return _cpu_segment_sums(values, bounds[:-1])


def _whole_sums(flat: th.Tensor) -> th.Tensor:
    blocks = flat.split(CPU_BLOCK if flat.device.type == "cpu" else DEVICE_BLOCK)
    sums = th.stack([_block_sums(block.to(th.float64, copy=True)) for block in blocks], dim=1)
    return th.cat((sums[:_MAX].sum(1, keepdim=True), sums[_MAX:].amax(1, keepdim=True)))


def _block_sums(values: th.Tensor) -> th.Tensor:
    total, square = values.sum(), values.dot(values)
    values.abs_()
    return th.stack((total, values.sum(), square, values.amax()))


def _device_segment_sums(values: th.Tensor, offsets: th.Tensor) -> th.Tensor:
    def reduce(how: str) -> th.Tensor:
        # unsafe=True leaves out a check of the offsets, which would wait for the device
        return th.segment_reduce(values, how, offsets=offsets, unsafe=True)

    values = values.to(th.float64, copy=True)
    total = reduce("sum")
    values.abs_()
    magnitude, maximum = reduce("sum"), reduce("max")
    values.square_()
    return th.stack((total, magnitude, reduce("sum"), maximum))


@silent  # non-finite sums mark the tensor as not observed
def _cpu_segment_sums(values: th.Tensor, starts: np.ndarray) -> Array:
    # NumPy reduces segments three times faster than torch.segment_reduce on a CPU. It knows no bfloat16.
    x = (values.float() if values.itemsize < th.float32.itemsize else values).numpy().astype(np.float64)
    total = np.add.reduceat(x, starts)
    np.abs(x, out=x)
    magnitude, maximum = np.add.reduceat(x, starts), np.maximum.reduceat(x, starts)
    np.square(x, out=x)
    return stack((total, magnitude, np.add.reduceat(x, starts), maximum))
