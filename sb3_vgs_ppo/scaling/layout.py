"""How the elements of P tensors lie in one vector: tensor by tensor, in the parameters' order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch as th

from sb3_vgs_ppo.scaling.arrays import Array, as_tensor


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "numel", th.tensor(self.sizes, dtype=th.float64, device=self.device))

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

    def zeros(self) -> th.Tensor:
        """:return: one zero per element, shape (N,)"""
        return th.zeros(self.n_elements, dtype=self.dtype, device=self.device)

    def spread(self, values: Array) -> th.Tensor | float:
        """
        :param values: one number per tensor, shape (P,)
        :return: the number of each element's tensor, shape (N,); a single one where the host knows that all are equal
        """
        if isinstance(values, np.ndarray) and (values == values[0]).all():
            return float(values[0])
        repeats = self.numel.long()
        return as_tensor(values).to(self.dtype).repeat_interleave(repeats, output_size=self.n_elements)
