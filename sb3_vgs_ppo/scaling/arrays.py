"""Numbers per tensor, P of them: NumPy arrays on a CPU, tensors on an accelerator.

On a dozen numbers an operation of torch takes 2 µs and one of NumPy 0.5 µs; on an accelerator only torch computes
without waiting for the device. What both write alike (operators, indexing, ``@``, ``sum``) is written once elsewhere;
here is the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch as th

Array: TypeAlias = Any
"""``np.ndarray`` or ``th.Tensor``, float64 or bool."""

silent: np.errstate = np.errstate(all="ignore")
"""Decorator: NumPy is as silent as torch about NaN and Inf, which mark what was not observed.

It costs as much as several operations, so it is not for functions that a silent one calls.
"""


def as_array(tensor: th.Tensor) -> Array:
    """:return: a CPU tensor as a NumPy array over the same memory; any other tensor itself"""
    return tensor.numpy() if tensor.is_cpu else tensor


def as_tensor(array: Array) -> th.Tensor:
    """:return: the array as a tensor, over the same memory where it has one"""
    # Without a device it would go to torch's default device
    return array if isinstance(array, th.Tensor) else th.as_tensor(array, device="cpu")


def stack(arrays: Sequence[Array]) -> Array:
    """:return: arrays of one shape, along a new first axis"""
    # np.stack takes three times as long, because it handles one array at a time
    return th.stack(list(arrays)) if isinstance(arrays[0], th.Tensor) else np.array(arrays)


def join(arrays: Sequence[Array]) -> Array:
    """:return: arrays one after the other, along the last axis"""
    return th.cat(list(arrays), dim=-1) if isinstance(arrays[0], th.Tensor) else np.concatenate(arrays, axis=-1)


def count(condition: Array) -> Array:
    """:return: where it holds, how often, 0-d; a plain int on a CPU"""
    return condition.sum() if isinstance(condition, th.Tensor) else np.count_nonzero(condition)


def where(condition: Array, chosen: Array, other: Array | float) -> Array:
    """:return: ``chosen`` where the condition holds, ``other`` elsewhere"""
    return (
        th.where(condition, chosen, other) if isinstance(condition, th.Tensor) else np.where(condition, chosen, other)
    )


def zero_unless(condition: Array, array: Array) -> Array:
    """:return: the array, with 0 where the condition does not hold; the array itself if the host sees that it does"""
    if isinstance(array, th.Tensor):
        return th.where(condition, array, 0.0)
    # It mostly holds everywhere, and counting is much faster than np.where
    return array if count(condition) == condition.size else np.where(condition, array, 0.0)


def at_least(array: Array, bound: Array | float) -> Array:
    """:return: the array, or a single number, and the bound where it is smaller; NaN stays NaN"""
    if isinstance(array, float):
        return max(array, bound)
    return array.clamp_min(bound) if isinstance(array, th.Tensor) else np.maximum(array, bound)


def dot(first: Array, second: Array) -> Array:
    """:return: product of two vectors, 0-d; a plain float on a CPU, which overflows silently and is quick"""
    return first.dot(second) if isinstance(first, th.Tensor) else float(first.dot(second))


def sort(array: Array) -> Array:
    """:return: sorted along the last axis"""
    return array.sort(-1).values if isinstance(array, th.Tensor) else np.sort(array)


def largest(array: Array) -> Array:
    """:return: maximum along the last axis"""
    return array.amax(-1) if isinstance(array, th.Tensor) else array.max(-1)
