"""
NumPy values as tensors, so that a state can be stored without pickle and comes back with the same types and the same
order of axes in memory: images that ``VecTransposeImage`` has turned are convolved in another order than a copy whose
last axis is contiguous, and their values would differ in the last digit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th

_ARRAY = {"dtype", "values"}


def to_plain(value: Any) -> Any:
    """
    :param value: arrays and numbers of NumPy, plain Python values, and dicts, lists and tuples of them
    :return: the same for :func:`sb3_vgs_ppo.checkpoint.dump_tensors`
    """
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        # Tensors of unsigned integers hardly exist beyond bytes; the signed ones have the same bits
        stored = array.view(f"i{array.itemsize}") if array.dtype.kind == "u" and array.itemsize > 1 else array
        # NumPy's copy forgets the stride of an axis of length 1, torch's keeps it, but does not take every array
        fits = stored.flags.writeable and all(step >= 0 and step % stored.itemsize == 0 for step in stored.strides)
        values = th.from_numpy(stored if fits else stored.copy(order="K"))
        return {"dtype": array.dtype.name, "values": values.clone()}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_plain(item) for item in value)
    return value


def from_plain(value: Any) -> Any:
    """
    :param value: what :func:`to_plain` returned
    :return: what it was given; arrays of no dimension become numbers of NumPy
    """
    if isinstance(value, dict):
        if value.keys() == _ARRAY:
            return value["values"].clone().numpy().view(value["dtype"])[()]
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(from_plain(item) for item in value)
    return value
