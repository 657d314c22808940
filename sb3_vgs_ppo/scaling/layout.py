"""How the elements of P tensors lie in one vector: tensor by tensor, in the parameters' order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch as th

from sb3_vgs_ppo._numba import loops
from sb3_vgs_ppo.scaling.arrays import Array, as_array, as_tensor


@dataclass(frozen=True)
class Layout:
    """Sizes of P tensors with N elements in all, known on the host, so that nothing asks a device for them.

    :param sizes: number of elements of each tensor
    :param device: of the tensors
    :param dtype: in which numbers per element are kept: float64 if a tensor is, else float32
    """

    sizes: tuple[int, ...]
    device: th.device
    dtype: th.dtype
    numel: th.Tensor = field(init=False, repr=False, compare=False)
    """The sizes as float64 tensor on the device, shape (P,)."""
    counts: Array = field(init=False, repr=False, compare=False)
    """The same as an array."""
    _repeats: Array = field(init=False, repr=False, compare=False)
    """The same as integers, in the form in which elements are repeated."""
    bounds: np.ndarray = field(init=False, repr=False, compare=False)
    """Where the elements of each tensor begin, and where the last one's end, shape (P + 1,)."""

    def __post_init__(self) -> None:
        repeats = th.tensor(self.sizes, dtype=th.long, device=self.device)
        object.__setattr__(self, "_repeats", as_array(repeats))
        object.__setattr__(self, "numel", repeats.double())
        object.__setattr__(self, "counts", as_array(self.numel))
        object.__setattr__(self, "bounds", np.cumsum([0, *self.sizes]))

    @classmethod
    def of(cls, tensors: Sequence[th.Tensor]) -> Layout:
        """
        :param tensors: at least one, on one device
        :return: their layout
        """
        double = any(tensor.dtype == th.float64 for tensor in tensors)
        return cls(tuple(t.numel() for t in tensors), tensors[0].device, th.float64 if double else th.float32)

    @property
    def n_elements(self) -> int:
        """N."""
        return sum(self.sizes)

    def __getstate__(self) -> dict[str, Any]:
        modules = ("loops", "element_loops")  # which cannot be pickled
        return {name: value for name, value in vars(self).items() if name not in modules}

    @cached_property
    def loops(self) -> ModuleType | None:
        """:mod:`sb3_vgs_ppo.scaling.loops` for numbers per tensor; None where NumPy or torch has to do."""
        return loops("sb3_vgs_ppo.scaling.loops") if self.device.type == "cpu" else None

    @cached_property
    def element_loops(self) -> ModuleType | None:
        """The same for numbers per element."""
        return self.loops if self.dtype == th.float32 else None

    def zeros(self) -> th.Tensor:
        """:return: one zero per element, shape (N,)"""
        return th.zeros(self.n_elements, dtype=self.dtype, device=self.device)

    def spread(self, values: Array) -> th.Tensor | float:
        """
        :param values: one number per tensor, shape (P,)
        :return: the number of each element's tensor, shape (N,); a single one where the host knows that all are equal
        """
        if isinstance(values, th.Tensor):
            return values.to(self.dtype).repeat_interleave(self._repeats, output_size=self.n_elements)
        if (values == values[0]).all():
            return float(values[0])
        # NumPy repeats four times faster than torch on a CPU
        return th.from_numpy(np.repeat(as_tensor(values).to(self.dtype).numpy(), self._repeats))

    def sum_powers(self, values: th.Tensor, power: Literal[1, 2]) -> Array:
        """
        :param values: one number per element, shape (N,); not negative if ``power`` is 1
        :param power: to which they are raised
        :return: their sum over the elements of each tensor, shape (P,), float64
        """
        if self.device.type != "cpu":
            norms = th.stack(th._foreach_norm(values.split(list(self.sizes)), power, dtype=th.float64))
            return norms if power == 1 else norms.square_()
        x = values.numpy().astype(np.float64)
        if power == 2:
            np.square(x, out=x)
        sums = np.zeros(len(self.sizes))
        filled = np.flatnonzero(self.sizes)  # reduceat takes an empty segment for its neighbour's first element
        sums[filled] = np.add.reduceat(x, self.bounds[filled])
        return sums
